//! Links as pins: kept, found again, removed. And who has which hook.

use std::path::Path;

use aya::programs::{
    TcAttachType,
    links::{FdLink, PinnedLink},
    loaded_programs,
};

use super::{DatapathError, interfaces::Interface, raw};

/// Pins a link; the program stays attached for as long as the pin is there.
pub(super) fn keep(link: FdLink, pin: &Path) -> Result<(), DatapathError> {
    link.pin(pin).map(drop).map_err(DatapathError::kernel(pin.display().to_string()))
}

/// The pinned link, if it still does something: its program is among those on the interface. One that does nothing is removed:
/// the interface it was for is gone (and this one has its number), or is in a network namespace of an earlier agent.
pub(super) fn pinned(
    pin: &Path,
    interface: &Interface,
    on_interface: impl FnOnce() -> Vec<u32>,
) -> Result<Option<FdLink>, DatapathError> {
    if !pin.exists() {
        return Ok(None);
    }
    let shown = || pin.display().to_string();
    let link: FdLink = PinnedLink::from_pin(pin).map_err(DatapathError::kernel(shown()))?.into();
    let program = link.info().map_err(DatapathError::kernel(shown()))?.program_id();
    if on_interface().contains(&program) {
        return Ok(Some(link));
    }
    // If this one is gone, too, nobody wonders.
    if interface.is_there() {
        tracing::warn!(pin = %pin.display(), "removing a link whose interface is gone");
    }
    remove(pin).map(|()| None)
}

/// Removes a pin, if it is there.
pub(super) fn remove(pin: &Path) -> Result<(), DatapathError> {
    match std::fs::remove_file(pin) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::io(pin.display().to_string())(e))
        }
        _ => Ok(()),
    }
}

/// Ids of the programs on one of an interface's TCX hooks; none where the kernel has no TCX.
pub(super) fn tcx_programs(interface: &Interface, way: TcAttachType) -> Vec<u32> {
    raw::tcx_programs(interface.index, way == TcAttachType::Egress).unwrap_or_default()
}

/// ` (id 57, "name")`, as far as it is known.
pub(super) fn describe(program: Option<u32>) -> String {
    let Some(id) = program else { return String::new() };
    let name = loaded_programs()
        .flatten()
        .find(|p| p.id() == id)
        .and_then(|p| p.name_as_str().map(|n| format!(", \"{n}\"")))
        .unwrap_or_default();
    format!(" (id {id}{name})")
}

/// An error about an interface.
pub(super) fn failed<E: std::error::Error>(
    interface: &Interface,
    what: &str,
) -> impl FnOnce(E) -> DatapathError {
    DatapathError::kernel(format!("interface {}: {what}", interface.name))
}

/// What the kernel said, somewhere below an error.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        source = cause.source();
    }
    None
}
