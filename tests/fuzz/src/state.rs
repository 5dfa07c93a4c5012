//! The state file.

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _, path::PathBuf};

use flowpin::{model::Origin, source::Runtime};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::assert_one_line;

/// It can be read, or one line says why not. What was read is written and read as the same; what it declares is valid, or
/// one line says why not.
pub fn state(bytes: &[u8]) {
    let runtime = match load(bytes) {
        Ok(runtime) => runtime,
        Err(why) => return assert_one_line(&why),
    };
    let written = serde_json::to_vec(&runtime).expect("a state can be written");
    let again = load(&written).unwrap_or_else(|e| panic!("what was written can't be read: {e}"));
    assert_eq!((&runtime.services, &runtime.backends), (&again.services, &again.backends));
    // Seconds are read to within a rounding error; `adopt` puts bad ones right, so there is nothing else to compare.
    assert!(runtime.drains.keys().eq(again.drains.keys()));
    assert_eq!(runtime.detached.is_some(), again.detached.is_some());
    for name in runtime.services.keys() {
        let decl = runtime.declared(name).expect("it is there");
        if let Err(e) = decl.spec(name, Origin::Cli).and_then(|spec| spec.validate()) {
            assert_one_line(&e.to_string());
        }
    }
    let drains = runtime.drains.values().flat_map(|drains| drains.values()).chain(&runtime.detached);
    drains.for_each(|drain| {
        drain.by_uptime();
    });
}

/// By way of a file, as the agent does.
pub(crate) fn load(bytes: &[u8]) -> Result<Runtime, String> {
    let mut file = File::from(memfd_create("state", MFdFlags::MFD_CLOEXEC).expect("memory"));
    file.write_all(bytes).expect("memory");
    Runtime::load(&PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
}
