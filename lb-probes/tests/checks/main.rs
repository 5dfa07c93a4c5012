//! Each check against a fake that speaks the bytes of its protocol, whole and in pieces; and against anything.

mod conversation;
mod fake;
mod mysql;
mod postgres;
mod redis;
mod scram;
mod total;
