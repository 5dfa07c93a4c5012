//! Lifecycle
