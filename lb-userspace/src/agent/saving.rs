//! What the agent keeps for the next one, written by whoever has time: the newest version, and never an older one over it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::shared::Shared;
use crate::source::SourceError;

/// The version of a file that is to be written next.
#[derive(Debug)]
pub struct Newest<T> {
    due: Mutex<Option<T>>,
    /// One at a time writes, and takes what is due only then: so that files follow each other as versions do.
    writing: Mutex<()>,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { due: Mutex::new(None), writing: Mutex::new(()) }
    }
}

impl<T> Newest<T> {
    /// This is to be written, in the place of what is still due.
    pub fn put(&self, version: T) {
        *self.due() = Some(version);
    }

    /// Is there anything to be written?
    pub fn is_due(&self) -> bool {
        self.due().is_some()
    }

    /// Writes what is due, once nobody else is writing. `None`: nothing is. What the disk refuses stays due, unless there
    /// is a newer version by then.
    pub fn write(&self, save: impl FnOnce(&T) -> Result<(), SourceError>) -> Option<Result<(), SourceError>> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.due().take()?;
        let saved = save(&version);
        if saved.is_err() {
            self.due().get_or_insert(version);
        }
        Some(saved)
    }

    fn due(&self) -> MutexGuard<'_, Option<T>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Writes addresses of hosts, if they are others than those in the file.
    pub fn save_names(&self) {
        self.note_saved("names", self.names.write(|(path, names)| names.save(path)));
    }

    /// Writes what was good last of the config.
    pub fn save_good(&self) {
        self.note_saved("last good config", self.good.write(|(path, good)| good.save(path)));
    }

    /// Writes what isn't written yet, for an agent that ends.
    pub fn save_last(&self) {
        self.save_names();
        self.save_good();
    }

    /// Says what the disk refuses; in the log once, since it is tried again.
    fn note_saved(&self, about: &'static str, saved: Option<Result<(), SourceError>>) {
        let Some(saved) = saved else { return };
        let mut state = self.write();
        if let Err(error) = &saved
            && state.problems.get(about) != Some(&error.to_string())
        {
            tracing::error!("{error}");
        }
        state.note(about, saved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result<(), SourceError> {
        let error = std::io::Error::other("no room");
        Err(SourceError::SaveNames { path: "names.json".into(), error })
    }

    /// What a write would save, if there is one.
    fn written(newest: &Newest<u32>) -> Option<u32> {
        let mut seen = None;
        newest.write(|version| {
            seen = Some(*version);
            Ok(())
        });
        seen
    }

    #[test]
    fn only_the_newest_is_written_and_once() {
        let newest = Newest::default();
        assert!(!newest.is_due() && written(&newest).is_none());
        (1..=5).for_each(|version| newest.put(version));
        assert!(newest.is_due());
        assert_eq!((written(&newest), written(&newest)), (Some(5), None));
    }

    #[test]
    fn what_the_disk_refuses_stays_due_unless_something_newer_is() {
        let newest = Newest::default();
        newest.put(1);
        assert!(newest.write(|_| refused()).is_some_and(|saved| saved.is_err()));
        assert_eq!(written(&newest), Some(1));
        newest.put(2);
        newest.write(|_| {
            newest.put(3);
            refused()
        });
        assert_eq!((written(&newest), written(&newest)), (Some(3), None));
    }

    #[test]
    fn files_follow_each_other_as_versions_do() {
        let newest = Newest::default();
        let file = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        newest.write(|version| {
                            file.lock().unwrap().push(*version);
                            Ok(())
                        });
                    }
                });
            }
            (1..=1_000).for_each(|version| newest.put(version));
        });
        newest.write(|version| {
            file.lock().unwrap().push(*version);
            Ok(())
        });
        let file = file.into_inner().unwrap();
        assert!(file.is_sorted() && file.last() == Some(&1_000), "{file:?}");
    }
}
