//! Events, a line each, as they come.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Client, ClientError};
use crate::api::types::EventView;

/// Events that come in.
pub struct Events<'a> {
    pub(super) client: &'a Client,
    pub(super) body: Incoming,
    pub(super) buffer: Vec<u8>,
}

impl Events<'_> {
    /// The next one; `None`: there are no more.
    ///
    /// # Errors
    /// The agent has gone, or says something else.
    pub async fn next(&mut self) -> Result<Option<EventView>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return self.client.read(&line).map(Some);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.data_ref().into_iter().flatten()),
                Some(Err(e)) => return Err(self.client.broken(&e)),
                None => return Ok(None),
            }
        }
    }
}
