//! Subjects. Who sends is a part of each, where a server's permissions can pin it:
//!
//! ```text
//! flowpin.CLUSTER.FROM.here        I am there
//! flowpin.CLUSTER.FROM.to.NODE     frames for a node
//! ```
//!
//! A dot would part a name in two: `~`, which no name has, is in its place.

use std::fmt::Display;

use crate::names;

/// Subjects of a node in its cluster.
pub(crate) struct Subjects {
    cluster: String,
    node: String,
}

/// What follows the sender.
const HERE: &str = "here";
const TO: &str = "to";

fn token(name: &str) -> String {
    name.replace('.', "~")
}

impl Subjects {
    pub(crate) fn new(cluster: &str, node: &str) -> Self {
        Self { cluster: format!("flowpin.{}", token(cluster)), node: token(node) }
    }

    fn of(&self, from: &dyn Display, what: &dyn Display) -> String {
        format!("{}.{from}.{what}", self.cluster)
    }

    /// Where this node says that it is there.
    pub(crate) fn here(&self) -> String {
        self.of(&self.node, &HERE)
    }

    /// Where this node sends frames to another.
    pub(crate) fn to(&self, name: &str) -> String {
        self.of(&self.node, &format!("{TO}.{}", token(name)))
    }

    /// Where all say that they are there.
    pub(crate) fn all_here(&self) -> String {
        self.of(&'*', &HERE)
    }

    /// Where frames for this node come.
    pub(crate) fn all_to(&self) -> String {
        self.of(&'*', &format!("{TO}.{}", self.node))
    }

    /// All subjects that this node sends to: what it has to be allowed.
    pub(crate) fn own(&self) -> String {
        self.of(&self.node, &'>')
    }

    /// The name of the node that has sent to a subject.
    ///
    /// # Errors
    /// None may have this name.
    pub(crate) fn sender(&self, subject: &str) -> Result<String, String> {
        let from = subject.strip_prefix(&self.cluster).and_then(|rest| rest.split('.').nth(1));
        let name = from.unwrap_or_default().replace('~', ".");
        match names::check_node(&name) {
            Ok(()) => Ok(name),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_subject() {
        let subjects = Subjects::new("prod.example", "node-1.example.net");
        assert_eq!(subjects.here(), "flowpin.prod~example.node-1~example~net.here");
        assert_eq!(
            subjects.to("node-2.example"),
            "flowpin.prod~example.node-1~example~net.to.node-2~example"
        );
        assert_eq!(subjects.own(), "flowpin.prod~example.node-1~example~net.>");
        assert_eq!(subjects.all_here(), "flowpin.prod~example.*.here");
        assert_eq!(subjects.all_to(), "flowpin.prod~example.*.to.node-1~example~net");
        assert_eq!(subjects.sender(&subjects.here()).unwrap(), "node-1.example.net");
        for bad in ["flowpin.prod~example.Node.here", "flowpin.prod~example..here", "other"] {
            assert!(subjects.sender(bad).is_err(), "{bad}");
        }
    }
}
