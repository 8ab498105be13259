//! Which file a path leads to, and a socket that stays reachable without its path.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

/// The identity of a file. The number of an inode is given to the next file as soon as it is free,
/// and so the time at which the file was made belongs to it, where the file system records that.
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

    /// Checks that the path leads to this file. May block.
    ///
    /// # Errors
    /// The path leads to another file ([`io::ErrorKind::NotFound`]), or cannot be followed.
    pub(crate) fn check(self, path: &Path) -> io::Result<()> {
        match Self::of(&fs::metadata(path)?) == self {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::NotFound, "another file has taken its path"))
            }
        }
    }
}

/// A socket that can be connected to wherever its file is: renamed, removed, or in a directory that
/// may not be searched any more. It keeps the file open (`O_PATH`), and is connected to by the
/// number of that descriptor in `/proc/self/fd`. Where there is no `/proc` it is the path alone.
#[derive(Debug)]
pub(crate) struct PinnedSocket {
    path: PathBuf,
    held: Option<OwnedFd>,
}

impl PinnedSocket {
    /// Pins the socket that the path leads to, if that is this file. May block.
    ///
    /// # Errors
    /// The path leads to another file, to no socket (`ENOTSOCK`), or cannot be followed.
    pub(crate) fn open(path: &Path, file: FileId) -> io::Result<Self> {
        let held = open_path(path)?;
        let Some(held) = held else {
            file.check(path)?;
            check_socket(path)?;
            return Ok(Self { path: path.into(), held: None });
        };
        let held = fs::File::from(held);
        let metadata = held.metadata()?;
        // By the open file and not by its path, which may lead to another file by now.
        if FileId::of(&metadata) != file {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file has taken its path"));
        }
        check(&metadata)?;
        let held = OwnedFd::from(held);
        Ok(Self { path: descriptor_path(&held), held: Some(held) })
    }

    /// The path to connect to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it stays reachable without its original path.
    pub(crate) fn is_lasting(&self) -> bool {
        self.held.is_some()
    }
}

/// Checks that there is a socket at the path. May block.
///
/// # Errors
/// There is another file (`ENOTSOCK`), or none.
pub(crate) fn check_socket(path: &Path) -> io::Result<()> {
    check(&fs::metadata(path)?)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.file_type().is_socket() { Ok(()) } else { Err(Errno::NOTSOCK.into()) }
}

/// Opens the file itself, if it can be connected to by its descriptor.
#[cfg(target_os = "linux")]
fn open_path(path: &Path) -> io::Result<Option<OwnedFd>> {
    use rustix::fs::{Mode, OFlags};

    let held = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let has_proc = descriptor_path(&held).exists();
    Ok(has_proc.then_some(held))
}

#[cfg(not(target_os = "linux"))]
fn open_path(_path: &Path) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

fn descriptor_path(held: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;

    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_pinned_socket_is_reachable_wherever_its_file_is() {
        use std::os::unix::net::{UnixListener, UnixStream};

        let home = tempfile::tempdir().unwrap();
        let one = home.path().join("one");
        let two = home.path().join("two");
        let listener = UnixListener::bind(&one).unwrap();
        let pinned = PinnedSocket::open(&one, FileId::of(&fs::metadata(&one).unwrap())).unwrap();
        fs::rename(&one, &two).unwrap();
        let _other = UnixListener::bind(&one).unwrap();
        for _ in 0..2 {
            let _client = UnixStream::connect(pinned.path()).unwrap();
            listener.accept().unwrap();
            // The second time the file has no path at all.
            let _ = fs::remove_file(&two);
        }
        drop(listener);
        let refused = UnixStream::connect(pinned.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn another_file_or_no_socket_is_not_pinned() {
        let home = tempfile::tempdir().unwrap();
        let one = home.path().join("one");
        let two = home.path().join("two");
        for path in [&one, &two] {
            fs::write(path, "").unwrap();
        }
        let file = FileId::of(&fs::metadata(&one).unwrap());
        let error = |path| PinnedSocket::open(path, file).unwrap_err();
        assert_eq!(Errno::from_io_error(&error(&one)), Some(Errno::NOTSOCK));
        assert_eq!(error(&two).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_replaces_another_has_another_identity() {
        let home = tempfile::tempdir().unwrap();
        let one = home.path().join("one");
        let two = home.path().join("two");
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
