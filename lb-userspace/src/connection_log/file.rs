//! A file that lines are appended to, and that others may rename, remove or shorten.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
};

use super::block::Block;

/// Of a file that is made: who keeps logs may read it.
const MODE: u32 = 0o640;

/// See the module.
pub struct LogFile {
    path: PathBuf,
    open: Option<File>,
    /// Bytes of the next line that are in it already: there was no room for the rest.
    torn: usize,
}

impl LogFile {
    /// At this path; it is opened when there is something to write, or by [`Self::reopen`].
    pub const fn new(path: PathBuf) -> Self {
        Self { path, open: None, torn: 0 }
    }

    /// Opens what is at the path now, or makes it.
    ///
    /// # Errors
    /// It can't be.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.open = None;
        // A line that was begun elsewhere is written here as a whole.
        self.torn = 0;
        let mut options = OpenOptions::new();
        // Without waiting, should it be a pipe that nobody reads.
        options.append(true).mode(MODE).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = match options.clone().create_new(true).open(&self.path) {
            Ok(file) => {
                // Whatever the agent's umask is.
                file.set_permissions(Permissions::from_mode(MODE))?;
                file
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let mut file = options.open(&self.path)?;
                if self.is_cut_short(&file) {
                    // A crash or a full disk has left part of a line: the next one isn't to be joined to it.
                    file.write_all(b"\n")?;
                }
                file
            }
            Err(e) => return Err(e),
        };
        self.open = Some(file);
        Ok(())
    }

    /// Does its last line have no end? Who may not read it can't tell.
    fn is_cut_short(&self, file: &File) -> bool {
        let last = || {
            let about = file.metadata()?;
            if !about.is_file() || about.len() == 0 {
                return Ok(b'\n');
            }
            let mut byte = [0];
            File::open(&self.path)?.read_exact_at(&mut byte, about.len() - 1)?;
            Ok::<_, io::Error>(byte[0])
        };
        last().is_ok_and(|byte| byte != b'\n')
    }

    /// Is what is open still what is at the path?
    fn is_there(&self, file: &File) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        matches!((file.metadata().map(id), std::fs::metadata(&self.path).map(id)), (Ok(a), Ok(b)) if a == b)
    }

    /// Writes what is left of the block, with one call where all of it has room.
    ///
    /// # Errors
    /// Not all of it could be written; the block says how much was.
    pub fn write(&mut self, block: &mut Block) -> io::Result<()> {
        if !self.open.as_ref().is_some_and(|file| self.is_there(file)) {
            self.reopen()?;
        }
        while !block.is_done() {
            let Some(file) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
            match file.write(&block.rest()[self.torn..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.torn = block.advance(self.torn + bytes),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::block::tests::block, *};

    #[test]
    fn lines_follow_the_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, old) = (dir.path().join("c.log"), dir.path().join("c.log.1"));
        let mut file = LogFile::new(path.clone());
        let mut write = |connections: u64| {
            let mut block = block(connections);
            file.write(&mut block).expect("written");
            assert!(block.is_done());
        };
        let lines = |path| fs::read_to_string(path).expect("a file").lines().count();
        write(2);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o640);
        write(1);
        assert_eq!(lines(&path), 5);
        fs::rename(&path, &old).expect("renamed");
        write(3);
        assert_eq!((lines(&path), lines(&old)), (4, 5), "renamed, and made anew");
        fs::remove_file(&path).expect("removed");
        write(1);
        assert_eq!(lines(&path), 2, "removed, and made anew");
        File::create(&path).expect("shortened");
        write(2);
        assert_eq!(lines(&path), 3, "copied and shortened");
        // Who makes it himself says who may read it.
        fs::rename(&path, &old).expect("renamed");
        fs::write(&path, "").expect("made");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
        write(1);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_finds_no_room_is_written_later_and_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let mut file = LogFile::new(path.clone());
        let mut block = block(1000);
        let wanted = String::from_utf8(block.rest().to_vec()).expect("text");
        assert!(file.write(&mut block).is_err(), "nobody reads");
        assert_eq!(block.connections().0, 0);
        let mut end = OpenOptions::new();
        let mut end = end.read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("the other end");
        let mut read = String::new();
        let mut rounds = 0;
        while !block.is_done() {
            let full = file.write(&mut block);
            assert!(block.is_done() || full.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
            // Some of it: it is never empty.
            let mut some = vec![0; 40_001];
            let count = io::Read::read(&mut end, &mut some).expect("read");
            read.push_str(std::str::from_utf8(&some[..count]).expect("text"));
            rounds += 1;
        }
        drop(file);
        io::Read::read_to_string(&mut end, &mut read).expect("the rest");
        assert!(rounds > 2, "{rounds}");
        assert_eq!(read, wanted);
    }

    #[test]
    fn a_line_that_was_begun_is_whole_in_the_next_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.log");
        let mut file = LogFile::new(path.clone());
        let mut block = block(2);
        file.reopen().expect("a file");
        // As if the disk had been full in the middle of the first line.
        file.torn = block.advance(10);
        fs::rename(&path, dir.path().join("old")).expect("renamed");
        file.write(&mut block).expect("written");
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(text.lines().filter(|line| line.starts_with('{')).count(), 3, "{text}");
    }

    #[test]
    fn a_line_that_was_cut_short_is_not_joined_with_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.log");
        for (before, wanted) in [("{\"ti", "{\"ti\n"), ("{}\n", "{}\n"), ("", "")] {
            fs::write(&path, before).expect("a file");
            let mut block = block(1);
            let lines = String::from_utf8(block.rest().to_vec()).expect("text");
            LogFile::new(path.clone()).write(&mut block).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("a file"), format!("{wanted}{lines}"));
        }
    }

    #[test]
    fn what_is_no_file_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = LogFile::new(dir.path().into());
        assert!(file.write(&mut block(1)).is_err());
        let mut file = LogFile::new(dir.path().join("none").join("c.log"));
        assert_eq!(file.write(&mut block(1)).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }
}
