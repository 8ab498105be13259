//! What is there: the sockets in a directory, and one level below it.
//!
//! A look is the truth at its time, and notices only say that it is time for one. So that nothing can
//! happen unnoticed, each directory is watched before it is read. May block: a file system can hang.

use std::collections::HashSet;
use std::fs::{self, DirEntry, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use virevent::Error;

use super::socket_pattern::SocketPattern;
use crate::peer::pinned_socket::FileId;

/// The most sockets, and the most sub-directories, that are taken.
const MOST: usize = 16_384;

/// How often a directory may vanish between being watched and being read before the look says that it
/// is not there. That it came and went is noticed, and looked at again.
const TRIES: usize = 8;

/// A socket in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketFile {
    pub(crate) path: PathBuf,
    pub(crate) file: FileId,
}

/// What there is.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The sockets, by path.
    pub(crate) sockets: Vec<SocketFile>,
    /// The sub-directories that could not be read, and why: what is in them is not known.
    pub(crate) unread: Vec<(PathBuf, Error)>,
    /// A monitor that is libvirt's own, and was left to it.
    pub(crate) of_libvirt: Option<PathBuf>,
    /// The directory is not there.
    pub(crate) is_absent: bool,
}

/// The sockets that there are. `watch` is told of each directory before it is read. A
/// directory that is not there is an empty one, and its nearest ancestor that is there is watched.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn look(place: &SocketPattern, watch: &mut dyn FnMut(&Path)) -> Result<Scan, Error> {
    let directory = &place.directory;
    for _ in 0..TRIES {
        watch(directory);
        match list(place, directory) {
            Ok(listed) => return below(place, listed, watch),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(place.unreadable(directory, error)),
        }
        let mut missing = directory.as_path();
        for ancestor in directory.ancestors().skip(1) {
            watch(ancestor);
            if ancestor.exists() {
                break;
            }
            missing = ancestor;
        }
        // Else it was made before the watch was.
        if !missing.exists() {
            break;
        }
    }
    Ok(Scan { is_absent: true, ..Scan::default() })
}

/// What is of interest in one directory.
#[derive(Default)]
struct DirectoryListing {
    sockets: Vec<SocketFile>,
    directories: Vec<PathBuf>,
    of_libvirt: Option<PathBuf>,
}

/// Adds what is in the sub-directories.
fn below(
    place: &SocketPattern,
    list: DirectoryListing,
    watch: &mut dyn FnMut(&Path),
) -> Result<Scan, Error> {
    let DirectoryListing { sockets, directories, of_libvirt } = list;
    let mut found = Scan { sockets, of_libvirt, ..Scan::default() };
    for directory in directories {
        watch(&directory);
        match self::list(place, &directory) {
            Ok(more) => {
                found.sockets.extend(more.sockets);
                found.of_libvirt = found.of_libvirt.or(more.of_libvirt);
            }
            // It has gone since.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => {
                let error = place.unreadable(&directory, error);
                found.unread.push((directory, error));
            }
        }
        if found.sockets.len() > MOST {
            return Err(place.unreadable(&place.directory, too_many()));
        }
    }
    // By the shorter path, if a link leads to one that is there itself.
    found.sockets.sort_by(|a, b| {
        let depth = |socket: &SocketFile| socket.path.components().count();
        depth(a).cmp(&depth(b)).then_with(|| a.path.cmp(&b.path))
    });
    let mut known = HashSet::new();
    found.sockets.retain(|socket| known.insert(socket.file));
    Ok(found)
}

fn too_many() -> io::Error {
    io::Error::other(format!(
        "there are more than {MOST} sockets, or sub-directories: narrow the pattern, or give the \
         QEMUs a directory of their own"
    ))
}

/// What is of interest in this directory itself.
fn list(place: &SocketPattern, directory: &Path) -> io::Result<DirectoryListing> {
    let mut found = DirectoryListing::default();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let takes = place.takes(entry.file_name().as_bytes());
        let Some((kind, metadata)) = what(&entry, takes)? else { continue };
        match metadata {
            _ if kind.is_dir() => found.directories.push(entry.path()),
            Some(_) if kind.is_socket() && place.leaves_to_libvirt(&entry.path()) => {
                found.of_libvirt = Some(entry.path());
            }
            Some(metadata) if kind.is_socket() => {
                found.sockets.push(SocketFile { path: entry.path(), file: FileId::of(&metadata) });
            }
            _ if takes => {
                tracing::debug!(path = %entry.path().display(), "passed over what is no socket");
            }
            _ => {}
        }
        if found.sockets.len().max(found.directories.len()) > MOST {
            return Err(too_many());
        }
    }
    Ok(found)
}

/// What an entry is, with all that is known of it if it may be a socket of interest; `None` if it is
/// gone already, or a link that leads nowhere.
fn what(entry: &DirEntry, takes: bool) -> io::Result<Option<(FileType, Option<Metadata>)>> {
    let own = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    };
    let kind = match entry.file_type() {
        Ok(kind) => kind,
        Err(error) => return own(error),
    };
    if kind.is_symlink() {
        // What is wrong with what it leads to is none of this directory's faults.
        let target = fs::metadata(entry.path()).ok();
        return Ok(target.map(|metadata| (metadata.file_type(), takes.then_some(metadata))));
    }
    if !(kind.is_socket() && takes) {
        return Ok(Some((kind, None)));
    }
    match entry.metadata() {
        Ok(metadata) => Ok(Some((metadata.file_type(), Some(metadata)))),
        Err(error) => own(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Tree {
        home: tempfile::TempDir,
        place: SocketPattern,
    }

    impl Tree {
        fn new(directory: &str) -> Self {
            let home = tempfile::Builder::new().prefix("vd").tempdir().unwrap();
            let uri = format!("qmp-dir:{}{directory}", home.path().display());
            Self { place: SocketPattern::parse(&uri).unwrap(), home }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.home.path().join(name)
        }

        fn socket(&self, name: &str) {
            UnixListener::bind(self.path(name)).unwrap();
        }

        /// What is there, and what is watched.
        fn look(&self) -> (Vec<String>, Vec<String>) {
            let short = |path: &Path| match path.strip_prefix(self.home.path()) {
                Ok(path) => path.display().to_string(),
                Err(_) => "above".into(),
            };
            let mut watched = Vec::new();
            let found = look(&self.place, &mut |path| watched.push(short(path))).unwrap();
            assert!(found.unread.is_empty());
            (found.sockets.iter().map(|socket| short(&socket.path)).collect(), watched)
        }
    }

    #[test]
    fn sockets_are_found_by_their_names_and_one_level_below() {
        let tree = Tree::new("");
        for directory in ["a", "b", "b/c"] {
            fs::create_dir(tree.path(directory)).unwrap();
        }
        for name in ["z.sock", "x.qmp", "a/y.monitor", "b/c/w.sock"] {
            tree.socket(name);
        }
        fs::write(tree.path("file.sock"), "").unwrap();
        let (sockets, mut watched) = tree.look();
        watched.sort();
        assert_eq!(sockets, ["z.sock", "a/y.monitor"]);
        assert_eq!(watched, ["", "a", "b"]);
    }

    #[test]
    fn what_is_libvirts_own_is_left_to_it_unless_it_is_named() {
        for (query, found) in [("", 1), ("?pattern=*.sock", 1), ("?pattern=monitor.sock", 2)] {
            let tree = Tree::new(query);
            for directory in ["domain-1-web", "mine"] {
                fs::create_dir(tree.path(directory)).unwrap();
                tree.socket(&format!("{directory}/monitor.sock"));
            }
            let all = look(&tree.place, &mut |_| {}).unwrap();
            assert_eq!(all.sockets.len(), found, "{query}");
            assert_eq!(all.of_libvirt.is_some(), found == 1, "{query}");
        }
    }

    #[test]
    fn a_link_leads_to_a_socket_but_to_none_twice_and_may_lead_nowhere() {
        let tree = Tree::new("/d");
        fs::create_dir(tree.path("d")).unwrap();
        tree.socket("elsewhere");
        tree.socket("d/real.sock");
        symlink(tree.path("elsewhere"), tree.path("d/link.sock")).unwrap();
        symlink("real.sock", tree.path("d/second.sock")).unwrap();
        symlink("nowhere", tree.path("d/broken.sock")).unwrap();
        symlink(".", tree.path("d/self")).unwrap();
        assert_eq!(tree.look().0, ["d/link.sock", "d/real.sock"]);
    }

    #[test]
    fn what_is_not_there_is_empty_and_whoever_makes_it_is_watched() {
        let tree = Tree::new("/a/b/c");
        assert_eq!(
            tree.look(),
            (vec![], vec!["a/b/c".into(), "a/b".into(), "a".into(), "".into()])
        );
        fs::create_dir_all(tree.path("a/b")).unwrap();
        assert_eq!(tree.look(), (vec![], vec!["a/b/c".into(), "a/b".into()]));
    }

    #[test]
    fn what_is_made_while_it_is_looked_for_is_found() {
        let tree = Tree::new("/a/b");
        let mut made = false;
        let found = look(&tree.place, &mut |path| {
            if path == tree.home.path() && !std::mem::replace(&mut made, true) {
                fs::create_dir_all(tree.path("a/b")).unwrap();
                tree.socket("a/b/vm.sock");
            }
        });
        assert_eq!(found.unwrap().sockets.len(), 1);
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_a_clear_error() {
        for directory in ["/file", "/file/below"] {
            let tree = Tree::new(directory);
            fs::write(tree.path("file"), "").unwrap();
            let error = look(&tree.place, &mut |_| {}).unwrap_err().to_line();
            assert!(error.contains("it is no directory"), "{error}");
        }
    }
}
