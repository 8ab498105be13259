//! Which sockets are in a directory, and one level below it.
//!
//! A scan is the truth at its time; notifications only say that it is time for one. Each directory
//! is watched before it is read, so that no change in between is missed. A scan may block: a file
//! system can hang.

use std::collections::HashSet;
use std::fs::{self, DirEntry, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use virevent::Error;

use super::socket_pattern::SocketPattern;
use crate::peer::pinned_socket::FileId;

/// The most sockets, and the most sub-directories, of a source.
const MAX_ENTRIES: usize = 16_384;

/// How often a directory may vanish between being watched and being read before the scan says that
/// it does not exist. Such a change is notified, and leads to another scan.
const MAX_TRIES: usize = 8;

/// A socket in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketFile {
    pub(crate) path: PathBuf,
    pub(crate) file: FileId,
}

/// What a scan has found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The sockets, by path.
    pub(crate) sockets: Vec<SocketFile>,
    /// The sub-directories that are unreadable, and why: what is in them is not known.
    pub(crate) unread: Vec<(PathBuf, Error)>,
    /// A monitor that belongs to libvirt, and was left out.
    pub(crate) of_libvirt: Option<PathBuf>,
    /// Whether the directory does not exist.
    pub(crate) is_absent: bool,
}

/// Scans a directory. `watch` is called with each directory before it is read. A directory that
/// does not exist is an empty one, and its nearest ancestor that exists is watched.
///
/// # Errors
/// The directory is unreadable.
pub(crate) fn scan(pattern: &SocketPattern, watch: &mut dyn FnMut(&Path)) -> Result<Scan, Error> {
    let directory = &pattern.directory;
    for _ in 0..MAX_TRIES {
        watch(directory);
        match read(pattern, directory) {
            Ok(listing) => return add_sub_directories(pattern, listing, watch),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(pattern.unreadable(directory, error)),
        }
        let mut missing = directory.as_path();
        // A directory that does not exist cannot be watched: its nearest ancestor says when it is
        // made.
        for ancestor in directory.ancestors().skip(1) {
            watch(ancestor);
            if ancestor.exists() {
                break;
            }
            missing = ancestor;
        }
        // If it exists, it was made before its ancestor was watched: try again.
        if !missing.exists() {
            break;
        }
    }
    Ok(Scan { is_absent: true, ..Scan::default() })
}

/// The sockets and sub-directories in one directory.
#[derive(Default)]
struct DirectoryListing {
    sockets: Vec<SocketFile>,
    directories: Vec<PathBuf>,
    of_libvirt: Option<PathBuf>,
}

/// Adds the sockets in the sub-directories.
fn add_sub_directories(
    pattern: &SocketPattern,
    listing: DirectoryListing,
    watch: &mut dyn FnMut(&Path),
) -> Result<Scan, Error> {
    let DirectoryListing { sockets, directories, of_libvirt } = listing;
    let mut found = Scan { sockets, of_libvirt, ..Scan::default() };
    for directory in directories {
        watch(&directory);
        match read(pattern, &directory) {
            Ok(more) => {
                found.sockets.extend(more.sockets);
                found.of_libvirt = found.of_libvirt.or(more.of_libvirt);
            }
            // It was removed since.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => {
                let error = pattern.unreadable(&directory, error);
                found.unread.push((directory, error));
            }
        }
        if found.sockets.len() > MAX_ENTRIES {
            return Err(pattern.unreadable(&pattern.directory, too_many()));
        }
    }
    // Of a socket and a link to it the shorter path is kept.
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
        "there are more than {MAX_ENTRIES} sockets, or sub-directories: narrow the pattern, or \
         give the QEMUs a directory of their own"
    ))
}

/// Reads one directory.
fn read(pattern: &SocketPattern, directory: &Path) -> io::Result<DirectoryListing> {
    let mut found = DirectoryListing::default();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let takes = pattern.takes(entry.file_name().as_bytes());
        let Some((kind, metadata)) = kind_of(&entry, takes)? else { continue };
        match metadata {
            _ if kind.is_dir() => found.directories.push(entry.path()),
            Some(_) if kind.is_socket() && pattern.leaves_to_libvirt(&entry.path()) => {
                found.of_libvirt = Some(entry.path());
            }
            Some(metadata) if kind.is_socket() => {
                found.sockets.push(SocketFile { path: entry.path(), file: FileId::of(&metadata) });
            }
            _ if takes => {
                tracing::debug!(path = %entry.path().display(), "ignored a file that is no socket");
            }
            _ => {}
        }
        // While reading, so that a directory of millions of files takes no memory for them all.
        if found.sockets.len().max(found.directories.len()) > MAX_ENTRIES {
            return Err(too_many());
        }
    }
    Ok(found)
}

/// The type of an entry, with its metadata if it may be a matching socket; `None` if it is gone
/// already, or a link that leads nowhere.
fn kind_of(entry: &DirEntry, takes: bool) -> io::Result<Option<(FileType, Option<Metadata>)>> {
    let unless_gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    };
    // On most file systems the type comes with the entry, without a system call.
    let kind = match entry.file_type() {
        Ok(kind) => kind,
        Err(error) => return unless_gone(error),
    };
    if kind.is_symlink() {
        // A target that is unreadable does not make this directory unreadable.
        let target = fs::metadata(entry.path()).ok();
        return Ok(target.map(|metadata| (metadata.file_type(), takes.then_some(metadata))));
    }
    if !(kind.is_socket() && takes) {
        return Ok(Some((kind, None)));
    }
    match entry.metadata() {
        Ok(metadata) => Ok(Some((metadata.file_type(), Some(metadata)))),
        Err(error) => unless_gone(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Tree {
        home: tempfile::TempDir,
        pattern: SocketPattern,
    }

    impl Tree {
        fn new(directory: &str) -> Self {
            let home = tempfile::Builder::new().prefix("vd").tempdir().unwrap();
            let uri = format!("qmp-dir:{}{directory}", home.path().display());
            Self { pattern: SocketPattern::parse(&uri).unwrap(), home }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.home.path().join(name)
        }

        fn socket(&self, name: &str) {
            UnixListener::bind(self.path(name)).unwrap();
        }

        /// The sockets, and the directories that are watched.
        fn scan(&self) -> (Vec<String>, Vec<String>) {
            let short = |path: &Path| match path.strip_prefix(self.home.path()) {
                Ok(path) => path.display().to_string(),
                Err(_) => "above".into(),
            };
            let mut watched = Vec::new();
            let found = scan(&self.pattern, &mut |path| watched.push(short(path))).unwrap();
            assert!(found.unread.is_empty());
            (found.sockets.iter().map(|socket| short(&socket.path)).collect(), watched)
        }
    }

    #[test]
    fn sockets_are_found_by_name_up_to_one_level_below() {
        let tree = Tree::new("");
        for directory in ["a", "b", "b/c"] {
            fs::create_dir(tree.path(directory)).unwrap();
        }
        for name in ["z.sock", "x.qmp", "a/y.monitor", "b/c/w.sock"] {
            tree.socket(name);
        }
        fs::write(tree.path("file.sock"), "").unwrap();
        let (sockets, mut watched) = tree.scan();
        watched.sort();
        assert_eq!(sockets, ["z.sock", "a/y.monitor"]);
        assert_eq!(watched, ["", "a", "b"]);
    }

    #[test]
    fn monitors_of_libvirt_are_ignored_unless_they_are_named() {
        for (query, found) in [("", 1), ("?pattern=*.sock", 1), ("?pattern=monitor.sock", 2)] {
            let tree = Tree::new(query);
            for directory in ["domain-1-web", "mine"] {
                fs::create_dir(tree.path(directory)).unwrap();
                tree.socket(&format!("{directory}/monitor.sock"));
            }
            let all = scan(&tree.pattern, &mut |_| {}).unwrap();
            assert_eq!(all.sockets.len(), found, "{query}");
            assert_eq!(all.of_libvirt.is_some(), found == 1, "{query}");
        }
    }

    #[test]
    fn a_link_to_a_socket_is_followed_and_counted_once() {
        let tree = Tree::new("/d");
        fs::create_dir(tree.path("d")).unwrap();
        tree.socket("elsewhere");
        tree.socket("d/real.sock");
        symlink(tree.path("elsewhere"), tree.path("d/link.sock")).unwrap();
        symlink("real.sock", tree.path("d/second.sock")).unwrap();
        symlink("nowhere", tree.path("d/broken.sock")).unwrap();
        symlink(".", tree.path("d/self")).unwrap();
        assert_eq!(tree.scan().0, ["d/link.sock", "d/real.sock"]);
    }

    #[test]
    fn an_absent_directory_is_empty_and_its_ancestor_watched() {
        let tree = Tree::new("/a/b/c");
        assert_eq!(
            tree.scan(),
            (vec![], vec!["a/b/c".into(), "a/b".into(), "a".into(), "".into()])
        );
        fs::create_dir_all(tree.path("a/b")).unwrap();
        assert_eq!(tree.scan(), (vec![], vec!["a/b/c".into(), "a/b".into()]));
    }

    #[test]
    fn a_directory_that_is_made_during_a_scan_is_found() {
        let tree = Tree::new("/a/b");
        let mut made = false;
        let found = scan(&tree.pattern, &mut |path| {
            if path == tree.home.path() && !std::mem::replace(&mut made, true) {
                fs::create_dir_all(tree.path("a/b")).unwrap();
                tree.socket("a/b/vm.sock");
            }
        });
        assert_eq!(found.unwrap().sockets.len(), 1);
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_an_error() {
        for directory in ["/file", "/file/below"] {
            let tree = Tree::new(directory);
            fs::write(tree.path("file"), "").unwrap();
            let error = scan(&tree.pattern, &mut |_| {}).unwrap_err().to_line();
            assert!(error.contains("it is not a directory"), "{error}");
        }
    }
}
