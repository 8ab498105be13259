//! Which file a path leads to, and a way to a socket that outlasts its path.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

/// What tells a file from another that has its name. An inode's number goes to the next file as soon
/// as it is free, and so the time at which the file was made belongs to it, where that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    made: Option<SystemTime>,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let made = metadata.created().ok();
        Self { device: metadata.dev(), inode: metadata.ino(), made }
    }

    /// That the path leads to this file.
    ///
    /// # Errors
    /// It leads to another ([`io::ErrorKind::NotFound`]), or cannot be followed.
    pub(crate) fn check(self, path: &Path) -> io::Result<()> {
        match Self::of(&fs::metadata(path)?) == self {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::NotFound, "it is another socket by now")),
        }
    }
}

/// A way to a socket that leads to the same file wherever that is by then: renamed, removed, or in a
/// directory that may not be searched any more. What it takes is a file that is held open (`O_PATH`), and
/// to connect by its number in `/proc/self/fd`. Where that cannot be had it is the path, and as short
/// lived.
#[derive(Debug)]
pub(crate) struct PinnedSocket {
    path: PathBuf,
    held: Option<OwnedFd>,
}

impl PinnedSocket {
    /// The way to the socket that the path leads to, if that is this file. May block.
    ///
    /// # Errors
    /// It leads to another file, to no socket (`ENOTSOCK`), or cannot be followed.
    pub(crate) fn open(path: &Path, file: FileId) -> io::Result<Self> {
        let held = hold(path)?;
        let Some(held) = held else {
            file.check(path)?;
            check_socket(path)?;
            return Ok(Self { path: path.into(), held: None });
        };
        let held = fs::File::from(held);
        let metadata = held.metadata()?;
        if FileId::of(&metadata) != file {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is another socket by now"));
        }
        check(&metadata)?;
        let held = OwnedFd::from(held);
        Ok(Self { path: by_number(&held), held: Some(held) })
    }

    /// What to connect to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it outlasts the path.
    pub(crate) fn is_lasting(&self) -> bool {
        self.held.is_some()
    }
}

/// That there is a socket at the path. May block.
///
/// # Errors
/// There is something else (`ENOTSOCK`), or nothing.
pub(crate) fn check_socket(path: &Path) -> io::Result<()> {
    check(&fs::metadata(path)?)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.file_type().is_socket() { Ok(()) } else { Err(Errno::NOTSOCK.into()) }
}

/// The file itself, if it can be connected to by its number.
#[cfg(target_os = "linux")]
fn hold(path: &Path) -> io::Result<Option<OwnedFd>> {
    use rustix::fs::{Mode, OFlags};

    let held = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let is_of_use = by_number(&held).exists();
    Ok(is_of_use.then_some(held))
}

#[cfg(not(target_os = "linux"))]
fn hold(_path: &Path) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

fn by_number(held: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;

    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_way_leads_to_its_socket_wherever_that_is() {
        use std::os::unix::net::{UnixListener, UnixStream};

        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        let listener = UnixListener::bind(&one).unwrap();
        let way = PinnedSocket::open(&one, FileId::of(&fs::metadata(&one).unwrap())).unwrap();
        fs::rename(&one, &two).unwrap();
        let _other = UnixListener::bind(&one).unwrap();
        for _ in 0..2 {
            let _client = UnixStream::connect(way.path()).unwrap();
            listener.accept().unwrap();
            // And then it is nowhere.
            let _ = fs::remove_file(&two);
        }
        drop(listener);
        let refused = UnixStream::connect(way.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn there_is_no_way_to_what_is_no_socket_or_another_file() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        for path in [&one, &two] {
            fs::write(path, "").unwrap();
        }
        let file = FileId::of(&fs::metadata(&one).unwrap());
        let error = |path| PinnedSocket::open(path, file).unwrap_err();
        assert_eq!(Errno::from_io_error(&error(&one)), Some(Errno::NOTSOCK));
        assert_eq!(error(&two).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_is_made_anew_or_takes_the_place_of_another_is_another_one() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        fs::write(&one, "").unwrap();
        let file = FileId::of(&fs::metadata(&one).unwrap());
        file.check(&one).unwrap();
        fs::remove_file(&one).unwrap();
        assert_eq!(file.check(&one).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&one, "").unwrap();
        file.check(&one).unwrap_err();
        fs::write(&two, "").unwrap();
        let file = FileId::of(&fs::metadata(&two).unwrap());
        fs::rename(&two, &one).unwrap();
        file.check(&one).unwrap();
    }
}
