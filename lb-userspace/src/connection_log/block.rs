//! Lines that are written together.

use super::{
    line::{self, Around},
    queue::Entry,
};

/// Entries with their lines, and how far they are written.
#[derive(Default)]
pub struct Block {
    entries: Vec<Entry>,
    text: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    /// Lines that are written.
    done: usize,
}

impl Block {
    /// Of these entries, as things are now.
    pub fn new(entries: Vec<Entry>, around: &Around<'_>) -> Self {
        let mut block = Self { ends: Vec::with_capacity(entries.len()), ..Self::default() };
        for entry in &entries {
            line::write(&mut block.text, entry, around);
            block.ends.push(block.text.len());
        }
        block.entries = entries;
        block
    }

    /// Is all of it written?
    pub fn is_done(&self) -> bool {
        self.done == self.entries.len()
    }

    fn start(&self) -> usize {
        self.done.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// The lines that are still to be written.
    pub fn rest(&self) -> &[u8] {
        &self.text[self.start()..]
    }

    /// The first entry that is still to be written, with its line, without its end.
    pub fn first(&self) -> Option<(&Entry, &[u8])> {
        let entry = self.entries.get(self.done)?;
        Some((entry, &self.text[self.start()..self.ends[self.done] - 1]))
    }

    /// So many bytes of [`Self::rest`] are written. Returns how many there are of a line that isn't whole yet.
    pub fn advance(&mut self, bytes: usize) -> usize {
        let at = self.start() + bytes;
        self.done = self.ends.partition_point(|end| *end <= at);
        at - self.start()
    }

    /// The first one is written.
    pub fn next(&mut self) {
        self.done += 1;
    }

    /// All are written.
    pub fn finish(&mut self) {
        self.done = self.entries.len();
    }

    /// Entries that are still to be written, with their lines.
    pub fn left(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        let starts = std::iter::once(self.start()).chain(self.ends[self.done..].iter().copied());
        let text = &self.text;
        let lines = starts.zip(&self.ends[self.done..]).map(move |(start, end)| &text[start..*end - 1]);
        self.entries[self.done..].iter().zip(lines)
    }

    /// Connections among what is written, and among what isn't.
    pub fn connections(&self) -> (u64, u64) {
        let of = |entries: &[Entry]| {
            let ended = entries.iter().filter(|entry| matches!(entry, Entry::Ended(_)));
            ended.count() as u64
        };
        (of(&self.entries[..self.done]), of(&self.entries[self.done..]))
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::SystemTime;

    use super::{
        super::queue::{Why, tests::record},
        *,
    };

    /// So many connections, and one line of what was lost.
    pub fn block(connections: u64) -> Block {
        let lost = Entry::Lost { since: SystemTime::UNIX_EPOCH, records: 3, why: Why::Ring };
        let entries = (0..connections).map(record).map(Entry::Ended).chain([lost]).collect();
        Block::new(entries, &Around { node: None, active: &|_| 0 })
    }

    #[test]
    fn what_is_written_is_known_to_the_line() {
        let mut block = block(3);
        let whole = block.rest().to_vec();
        let lines: Vec<Vec<u8>> = whole.split_inclusive(|byte| *byte == b'\n').map(Vec::from).collect();
        assert_eq!((lines.len(), block.connections()), (4, (0, 3)));
        assert_eq!(
            block.advance(lines[0].len() - 1),
            lines[0].len() - 1,
            "a line without its end isn't whole"
        );
        assert_eq!(block.rest(), whole);
        assert_eq!(block.advance(lines[0].len() + 5), 5);
        assert_eq!(block.connections(), (1, 2));
        assert_eq!(
            block.first().map(|(_, line)| line.to_vec()),
            Some(lines[1][..lines[1].len() - 1].to_vec())
        );
        assert_eq!(block.left().count(), 3);
        assert!(block.left().zip(&lines[1..]).all(|((_, line), wanted)| line == &wanted[..wanted.len() - 1]));
        block.next();
        assert_eq!(block.advance(block.rest().len()), 0);
        assert!(block.is_done() && block.rest().is_empty() && block.first().is_none());
        assert_eq!(block.connections(), (3, 0));
    }
}
