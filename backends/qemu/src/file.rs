//! Which file a path leads to.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

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

#[cfg(test)]
mod tests {
    use super::*;

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
