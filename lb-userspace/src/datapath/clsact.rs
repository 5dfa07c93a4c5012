//! TC the older way, for kernels without TCX (before 6.6): a filter on a clsact qdisc.
//!
//! There is no link to pin. The filter stays by itself; that it is ours is noted as an empty directory where the pin would be,
//! so that whichever agent runs later takes it off when the configuration says so.

use std::{fs::DirBuilder, io::ErrorKind, os::unix::fs::DirBuilderExt, path::Path};

use aya::programs::{
    Link as _, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};

use super::{
    DatapathError,
    interfaces::Interface,
    links::{errno, failed},
};

/// Where filters of ours are: a fixed priority and handle, so that the next agent finds and replaces them. 0xf10 for "flow".
const PRIORITY: u16 = 0xf10;
const HANDLE: u32 = 1;

fn ours(name: &str, way: TcAttachType) -> Result<SchedClassifierLink, DatapathError> {
    let handle = TcHandle::from(HANDLE);
    SchedClassifierLink::attached(name, way, PRIORITY, handle, None)
        .map_err(DatapathError::io(format!("interface {name}")))
}

/// Attaches, or replaces what an earlier agent left, without a gap.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &Interface,
    way: TcAttachType,
    mark: &Path,
) -> Result<(), DatapathError> {
    match qdisc_add_clsact(&interface.name) {
        Err(e) if errno(&e) == Some(libc::EEXIST) => {}
        other => other.map_err(failed(interface, "clsact"))?,
    }
    let id = match program.attach_to_link(ours(&interface.name, way)?) {
        Ok(id) => id,
        // There was nothing to replace.
        Err(_) => {
            let (priority, handle) = (PRIORITY, TcHandle::from(HANDLE));
            let options = TcAttachOptions::Netlink(NlOptions { priority, handle, ..NlOptions::default() });
            program.attach_with_options(&interface.name, way, options).map_err(failed(interface, "clsact"))?
        }
    };
    // The filter stays without anybody holding it.
    std::mem::forget(program.take_link(id).map_err(failed(interface, "clsact"))?);
    match DirBuilder::new().mode(0o700).create(mark) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            Err(DatapathError::io(mark.display().to_string())(e))
        }
        _ => Ok(()),
    }
}

/// Takes the filter off, if there is a mark that says that it is ours. The interface may have another name by now, or be gone.
pub(super) fn detach(index: u32, way: TcAttachType, mark: &Path) -> Result<(), DatapathError> {
    if !mark.exists() {
        return Ok(());
    }
    if let Ok(name) = nix::net::if_::if_indextoname(index) {
        let name = name.to_string_lossy();
        match ours(&name, way)?.detach() {
            Err(e) if errno(&e) != Some(libc::ENOENT) && errno(&e) != Some(libc::EINVAL) => {
                return Err(DatapathError::kernel(format!("interface {name}: clsact"))(e));
            }
            _ => {}
        }
    }
    std::fs::remove_dir(mark).map_err(DatapathError::io(mark.display().to_string()))
}
