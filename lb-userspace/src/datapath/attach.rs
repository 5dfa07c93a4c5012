//! Programs on interfaces, by links that are pinned: the program stays when the agent goes, and the next agent swaps its own in
//! without a gap.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::programs::{
    Link as _, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    xdp::XdpLink,
};
use lb_common::abi::programs;

use super::{DatapathError, interfaces::Interface, object::Object, pin::PinDir};
use crate::source::Attach;

/// Where clsact filters of ours are: a fixed priority and handle, so that the next agent finds and replaces them. 0xf10 for
/// "flow".
const CLSACT_PRIORITY: u16 = 0xf10;
const CLSACT_HANDLE: u32 = 1;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    XdpNative,
    /// By the stack, for drivers without XDP.
    XdpGeneric,
    /// TCX link.
    Tcx,
    /// Filter on a clsact qdisc, for kernels without TCX (before 6.6).
    Clsact,
}

impl Mode {
    /// As status shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    const fn hook(self) -> &'static str {
        match self {
            Self::XdpNative | Self::XdpGeneric => "xdp",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// What is attached where.
pub struct Attachments {
    links: PathBuf,
    attached: BTreeMap<u32, (String, Attach, Mode)>,
}

impl Attachments {
    /// Nothing yet.
    pub fn new(pins: &PinDir) -> Self {
        Self { links: pins.links(), attached: BTreeMap::new() }
    }

    /// How an interface is attached.
    pub fn mode(&self, index: u32) -> Option<Mode> {
        self.attached.get(&index).map(|(_, _, mode)| *mode)
    }

    /// Attaches to an interface, or swaps the program of the link that is there.
    ///
    /// # Errors
    /// Another program has the hook, or the kernel refuses.
    pub fn attach(
        &mut self,
        object: &mut Object,
        interface: &Interface,
        how: Attach,
    ) -> Result<Mode, DatapathError> {
        if let Some((_, before, mode)) = self.attached.get(&interface.index) {
            if *before == how {
                return Ok(*mode);
            }
            self.detach(interface.index)?;
        }
        let mode = match how {
            Attach::Xdp => self.attach_xdp(object, interface)?,
            Attach::Tc => self.attach_tc(object.tc()?, interface, true)?,
        };
        self.attached.insert(interface.index, (interface.name.clone(), how, mode));
        Ok(mode)
    }

    fn pin(&self, index: u32, hook: &str) -> PathBuf {
        self.links.join(format!("{index}-{hook}"))
    }

    fn attach_xdp(&self, object: &mut Object, interface: &Interface) -> Result<Mode, DatapathError> {
        let name = if interface.partial_checksums { programs::XDP_VIRTUAL } else { programs::XDP };
        let program = object.xdp(name)?;
        let generic = self.pin(interface.index, "xdpgeneric");
        for (pin, mode) in [(self.pin(interface.index, "xdp"), Mode::XdpNative), (generic, Mode::XdpGeneric)]
        {
            if swap_xdp(program, &pin)? {
                return Ok(mode);
            }
        }
        for (mode, flags, hook) in
            [(Mode::XdpNative, XdpMode::Driver, "xdp"), (Mode::XdpGeneric, XdpMode::Skb, "xdpgeneric")]
        {
            match program.attach_to_if_index(interface.index, flags) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(failed(interface, "XDP"))?;
                    keep(
                        link.try_into().map_err(failed(interface, "XDP"))?,
                        &self.pin(interface.index, hook),
                    )?;
                    return Ok(mode);
                }
                // The driver has no XDP, or not for this device as it is set up.
                Err(e) if mode == Mode::XdpNative && errno(&e) != Some(libc::EBUSY) => {
                    tracing::debug!(interface = interface.name, error = %e, "no native XDP, trying generic");
                }
                Err(e) if errno(&e) == Some(libc::EBUSY) => {
                    return Err(DatapathError::Kernel {
                        what: format!("interface {}", interface.name),
                        error: "another XDP program is attached; remove it, or use attach = \"tc\"".into(),
                    });
                }
                Err(e) => return Err(failed(interface, "XDP")(e)),
            }
        }
        unreachable!("the last round returns")
    }

    /// `tcx`: try that first. Public for the test of the fallback.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_tc(
        &self,
        program: &mut SchedClassifier,
        interface: &Interface,
        tcx: bool,
    ) -> Result<Mode, DatapathError> {
        let pin = self.pin(interface.index, "tcx");
        if pin.exists() {
            let link: FdLink = PinnedLink::from_pin(&pin).map_err(failed(interface, "TCX"))?.into();
            let link: SchedClassifierLink = link.try_into().map_err(failed(interface, "TCX"))?;
            match program.attach_to_link(link) {
                Ok(id) => {
                    // The pin keeps the link; this handle may go.
                    drop(program.take_link(id).map_err(failed(interface, "TCX"))?);
                    return Ok(Mode::Tcx);
                }
                Err(e) => forget(&pin, &e)?,
            }
        }
        if tcx {
            let options = TcAttachOptions::TcxOrder(Default::default());
            match program.attach_with_options(&interface.name, TcAttachType::Ingress, options) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(failed(interface, "TCX"))?;
                    keep(link.try_into().map_err(failed(interface, "TCX"))?, &pin)?;
                    return Ok(Mode::Tcx);
                }
                Err(e) => tracing::debug!(interface = interface.name, error = %e, "no TCX, trying clsact"),
            }
        }
        match qdisc_add_clsact(&interface.name) {
            Err(e) if errno(&e) == Some(libc::EEXIST) => {}
            other => other.map_err(failed(interface, "clsact"))?,
        }
        let ours = || {
            SchedClassifierLink::attached(
                &interface.name,
                TcAttachType::Ingress,
                CLSACT_PRIORITY,
                TcHandle::from(CLSACT_HANDLE),
                None,
            )
        };
        // Replaces what an earlier agent left there; if there is nothing, makes it.
        let link = ours().map_err(DatapathError::io(interface.name.clone()))?;
        let id = match program.attach_to_link(link) {
            Ok(id) => id,
            Err(_) => program
                .attach_with_options(
                    &interface.name,
                    TcAttachType::Ingress,
                    TcAttachOptions::Netlink(NlOptions {
                        priority: CLSACT_PRIORITY,
                        handle: TcHandle::from(CLSACT_HANDLE),
                        ..NlOptions::default()
                    }),
                )
                .map_err(failed(interface, "clsact"))?,
        };
        // The filter stays without anybody holding it.
        std::mem::forget(program.take_link(id).map_err(failed(interface, "clsact"))?);
        Ok(Mode::Clsact)
    }

    /// Takes the program off an interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&mut self, index: u32) -> Result<(), DatapathError> {
        let Some((name, _, mode)) = self.attached.remove(&index) else { return Ok(()) };
        if mode == Mode::Clsact {
            let link = SchedClassifierLink::attached(
                &name,
                TcAttachType::Ingress,
                CLSACT_PRIORITY,
                TcHandle::from(CLSACT_HANDLE),
                None,
            )
            .map_err(DatapathError::io(name.clone()))?;
            return link.detach().map_err(DatapathError::kernel(name));
        }
        for hook in [mode.hook(), "xdpgeneric"] {
            remove(&self.pin(index, hook))?;
        }
        Ok(())
    }

    /// Forgets an interface that is gone, and removes pins of interfaces that are not in `wanted`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep_only(&mut self, wanted: &[u32]) -> Result<(), DatapathError> {
        let unwanted: Vec<u32> = self.attached.keys().copied().filter(|i| !wanted.contains(i)).collect();
        for index in unwanted {
            self.detach(index)?;
        }
        let entries = std::fs::read_dir(&self.links).map_err(DatapathError::io("links"))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let index = name.split('-').next().and_then(|i| i.parse::<u32>().ok());
            if index.is_none_or(|i| !wanted.contains(&i)) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Takes the programs off every interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach_all(&mut self) -> Result<(), DatapathError> {
        self.keep_only(&[])
    }
}

/// Puts the program in place of the one that a pinned link carries. False: there is no such link, or its interface is gone.
fn swap_xdp(program: &mut Xdp, pin: &Path) -> Result<bool, DatapathError> {
    if !pin.exists() {
        return Ok(false);
    }
    let what = || pin.display().to_string();
    let link: FdLink = PinnedLink::from_pin(pin).map_err(DatapathError::kernel(what()))?.into();
    let link: XdpLink = link.try_into().map_err(DatapathError::kernel(what()))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // The pin keeps the link; this handle may go.
            drop(program.take_link(id).map_err(DatapathError::kernel(what()))?);
            Ok(true)
        }
        Err(e) => forget(pin, &e).map(|()| false),
    }
}

/// A link whose interface is gone can't be updated, and its pin is of no use.
fn forget(pin: &Path, error: &ProgramError) -> Result<(), DatapathError> {
    tracing::warn!(pin = %pin.display(), %error, "replacing a link that can't be updated");
    remove(pin)
}

fn keep(link: FdLink, pin: &Path) -> Result<(), DatapathError> {
    link.pin(pin).map(drop).map_err(DatapathError::kernel(pin.display().to_string()))
}

fn remove(pin: &Path) -> Result<(), DatapathError> {
    match std::fs::remove_file(pin) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::io(pin.display().to_string())(e))
        }
        _ => Ok(()),
    }
}

fn failed<E: std::error::Error>(interface: &Interface, what: &str) -> impl FnOnce(E) -> DatapathError {
    DatapathError::kernel(format!("interface {}: {what}", interface.name))
}

fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        source = cause.source();
    }
    None
}
