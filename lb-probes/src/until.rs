//! A stream whose time is over at some moment.

use std::{
    io::{Error, ErrorKind, Result},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// A stream that fails at its deadline. A check that is simply dropped can't say what came; over one of these it
/// says it: `answers "role:slave", then: no answer within 1s; "role:master" was expected`.
pub struct Until<S> {
    stream: S,
    over: Pin<Box<Sleep>>,
    words: String,
}

impl<S> Until<S> {
    /// `words`: of the error, `no answer within 1s`.
    pub fn new(stream: S, deadline: Instant, words: String) -> Self {
        Self { stream, over: Box::pin(tokio::time::sleep_until(deadline)), words }
    }

    /// What came in time, or the error if the time is over.
    fn or_over<T>(&mut self, cx: &mut Context<'_>, in_time: Poll<Result<T>>) -> Poll<Result<T>> {
        if in_time.is_pending() {
            ready!(self.over.as_mut().poll(cx));
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, self.words.clone())));
        }
        in_time
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Until<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.or_over(cx, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Until<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.or_over(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.or_over(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let ended = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.or_over(cx, ended)
    }
}
