//! Programs on interfaces, by links that are pinned: the program stays when the agent goes, and the next agent swaps its own in
//! without a gap.
//!
//! An interface that changes its hook meets both programs for an instant, never none: what the first has translated belongs to
//! no flow and no service any more, so the second lets it pass; a packet that met none would be answered with a RST by a stack
//! that knows nothing of the VIP.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::programs::{
    SchedClassifier, TcAttachType, Xdp, XdpMode,
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};
use lb_common::abi::programs;

use super::{
    DatapathError, clsact,
    interfaces::Interface,
    links::{self, errno, failed},
    object::Object,
    pin::PinDir,
};
use crate::source::{Attach, Variant};

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
    /// TCX link, for packets that leave.
    TcxEgress,
    /// Filter on a clsact qdisc, for packets that leave.
    ClsactEgress,
}

impl Mode {
    /// All of them.
    const ALL: [Self; 6] =
        [Self::XdpNative, Self::XdpGeneric, Self::Tcx, Self::Clsact, Self::TcxEgress, Self::ClsactEgress];

    /// For packets that leave?
    const fn is_egress(self) -> bool {
        matches!(self, Self::TcxEgress | Self::ClsactEgress)
    }

    /// A filter, not a link?
    const fn is_clsact(self) -> bool {
        matches!(self, Self::Clsact | Self::ClsactEgress)
    }

    /// Which TC hook it is, if it is one.
    const fn way(self) -> TcAttachType {
        if self.is_egress() { TcAttachType::Egress } else { TcAttachType::Ingress }
    }

    /// As status shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::TcxEgress => "tcx-egress",
            Self::ClsactEgress => "clsact-egress",
        }
    }

    /// As the pin is named.
    const fn hook(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdpgeneric",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::TcxEgress => "tcxegress",
            Self::ClsactEgress => "clsactegress",
        }
    }
}

/// What is attached where.
pub struct Attachments {
    links: PathBuf,
    attached: BTreeMap<u32, Attached>,
}

/// What is attached to an interface.
#[derive(Clone, Copy)]
struct Attached {
    how: Attach,
    variant: Variant,
    direct: bool,
    ingress: Mode,
    egress: Mode,
    /// TC beside XDP, for what XDP leaves to it.
    besides: Option<Mode>,
}

/// The program for an interface.
fn xdp_program(interface: &Interface, variant: Variant) -> &'static str {
    match (interface.partial_checksums, variant) {
        (true, Variant::Egress | Variant::Besides) => programs::XDP_VIRTUAL,
        (true, Variant::Ingress) => programs::XDP_VIRTUAL_INGRESS,
        (true, Variant::Fast) => programs::XDP_VIRTUAL_FAST,
        (false, Variant::Egress | Variant::Besides) => programs::XDP,
        (false, Variant::Ingress) => programs::XDP_INGRESS,
        (false, Variant::Fast) => programs::XDP_FAST,
    }
}

/// The program for a TC hook.
fn tc_program(mode: Mode, variant: Variant) -> &'static str {
    match (mode.is_egress(), variant) {
        (true, _) => programs::EGRESS,
        (false, Variant::Egress) => programs::TC,
        (false, Variant::Ingress) => programs::TC_INGRESS,
        (false, Variant::Fast) => programs::TC_FAST,
        (false, Variant::Besides) => programs::TC_BESIDES,
    }
}

impl Attachments {
    /// Nothing yet.
    pub fn new(pins: &PinDir) -> Self {
        Self { links: pins.links(), attached: BTreeMap::new() }
    }

    /// How an interface is attached.
    pub fn mode(&self, index: u32) -> Option<Mode> {
        self.attached.get(&index).map(|a| a.ingress)
    }

    /// Attaches to an interface, or swaps the program of the link that is there. What is in place already is looked at, and put
    /// back if somebody took it off. `variant`: how packets go that come in by it. `direct`: there are services whose backends
    /// answer past the node; XDP leaves their packets to TC, which is attached besides.
    ///
    /// # Errors
    /// Another program has the hook, or the kernel refuses a program or the hook. What was attached before stays.
    pub fn attach(
        &mut self,
        object: &mut Object,
        interface: &Interface,
        how: Attach,
        variant: Variant,
        direct: bool,
    ) -> Result<Mode, DatapathError> {
        if let Some(before) = self.attached.get(&interface.index).copied()
            && (before.how, before.variant, before.direct) == (how, variant, direct)
        {
            if in_place(object, interface, before.ingress, variant)?
                && in_place(object, interface, before.egress, variant)?
                && before
                    .besides
                    .map_or(Ok(true), |mode| in_place(object, interface, mode, Variant::Besides))?
            {
                return Ok(before.ingress);
            }
            if !before.ingress.is_clsact() && !before.egress.is_clsact() && interface.is_there() {
                tracing::warn!(interface = interface.name, "the program was taken off; putting it back");
            }
            self.attached.remove(&interface.index);
        }
        // All of them before the first is attached: with half of them, packets would be translated one way only.
        let both = Self::load(object, interface, how, variant, direct)?;
        // What comes in last: an answer must find its translation where it leaves.
        let egress = self.attach_tc(object, interface, variant, [Mode::TcxEgress, Mode::ClsactEgress])?;
        let besides = match both {
            true => Some(self.attach_tc(object, interface, Variant::Besides, [Mode::Tcx, Mode::Clsact])?),
            false => None,
        };
        let ingress = match how {
            Attach::Xdp => self.attach_xdp(object, interface, variant)?,
            Attach::Tc => self.attach_tc(object, interface, variant, [Mode::Tcx, Mode::Clsact])?,
        };
        self.attached.insert(interface.index, Attached { how, variant, direct, ingress, egress, besides });
        // Only now, so that no packet meets neither: see the module.
        let used = [Some(ingress), Some(egress), besides];
        for other in Mode::ALL.into_iter().filter(|m| !used.contains(&Some(*m))) {
            self.release(interface.index, other)?;
        }
        Ok(ingress)
    }

    /// Loads all programs that an interface is to have. True: TC beside XDP, too.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn load(
        object: &mut Object,
        interface: &Interface,
        how: Attach,
        variant: Variant,
        direct: bool,
    ) -> Result<bool, DatapathError> {
        match how {
            Attach::Xdp => object.xdp(xdp_program(interface, variant)).map(drop)?,
            Attach::Tc => object.tc(tc_program(Mode::Tcx, variant)).map(drop)?,
        }
        object.tc(tc_program(Mode::TcxEgress, variant))?;
        let both = how == Attach::Xdp && direct;
        if both {
            object.tc(tc_program(Mode::Tcx, Variant::Besides))?;
        }
        Ok(both)
    }

    fn pin(&self, index: u32, mode: Mode) -> PathBuf {
        self.links.join(format!("{index}-{}", mode.hook()))
    }

    fn attach_xdp(
        &self,
        object: &mut Object,
        interface: &Interface,
        variant: Variant,
    ) -> Result<Mode, DatapathError> {
        let program = object.xdp(xdp_program(interface, variant))?;
        for mode in [Mode::XdpNative, Mode::XdpGeneric] {
            if swap_xdp(program, &self.pin(interface.index, mode), interface)? {
                return Ok(mode);
            }
        }
        for (mode, flags) in [(Mode::XdpNative, XdpMode::Driver), (Mode::XdpGeneric, XdpMode::Skb)] {
            match program.attach_to_if_index(interface.index, flags) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(failed(interface, "XDP"))?;
                    links::keep(
                        link.try_into().map_err(failed(interface, "XDP"))?,
                        &self.pin(interface.index, mode),
                    )?;
                    return Ok(mode);
                }
                Err(e) if errno(&e) == Some(libc::EBUSY) => {
                    return Err(DatapathError::Kernel {
                        what: format!("interface {}", interface.name),
                        error: format!(
                            "another XDP program{} is attached; remove it, or use attach = \"tc\"",
                            links::describe(interface.xdp)
                        ),
                    });
                }
                // The driver has no XDP, or not for this device as it is set up.
                Err(e) if mode == Mode::XdpNative => {
                    tracing::debug!(interface = interface.name, error = %e, "no native XDP, trying generic");
                }
                Err(e) => return Err(failed(interface, "XDP")(e)),
            }
        }
        unreachable!("the last round returns")
    }

    /// Attaches by the first of these that the kernel has, TCX or else clsact. Public for the test of the fallback.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_tc(
        &self,
        object: &mut Object,
        interface: &Interface,
        variant: Variant,
        modes: impl IntoIterator<Item = Mode>,
    ) -> Result<Mode, DatapathError> {
        for mode in modes {
            let (program, pin) = (object.tc(tc_program(mode, variant))?, self.pin(interface.index, mode));
            if mode.is_clsact() {
                clsact::attach(program, interface, mode.way(), &pin)?;
                return Ok(mode);
            }
            if swap_tcx(program, &pin, interface, mode)? {
                return Ok(mode);
            }
            let options = TcAttachOptions::TcxOrder(Default::default());
            match program.attach_with_options(&interface.name, mode.way(), options) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(failed(interface, "TCX"))?;
                    links::keep(link.try_into().map_err(failed(interface, "TCX"))?, &pin)?;
                    return Ok(mode);
                }
                Err(e) => tracing::debug!(interface = interface.name, error = %e, "no TCX, trying clsact"),
            }
        }
        Err(failed(interface, "TC")(std::io::Error::from(std::io::ErrorKind::Unsupported)))
    }

    /// Takes the program off one hook of an interface, if it is there.
    fn release(&self, index: u32, mode: Mode) -> Result<(), DatapathError> {
        let pin = self.pin(index, mode);
        if mode.is_clsact() { clsact::detach(index, mode.way(), &pin) } else { links::remove(&pin) }
    }

    /// Takes the programs off all interfaces but `wanted`, those of earlier agents included, and forgets interfaces that are
    /// gone. Goes on after a failure.
    ///
    /// # Errors
    /// The first failure: the kernel or the file system refuses.
    pub fn keep_only(&mut self, wanted: &[u32]) -> Result<(), DatapathError> {
        self.attached.retain(|index, _| wanted.contains(index));
        let entries = std::fs::read_dir(&self.links).map_err(DatapathError::io("links"))?;
        let mut result = Ok(());
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let parsed = name.split_once('-').and_then(|(index, hook)| {
                Some((index.parse::<u32>().ok()?, Mode::ALL.into_iter().find(|m| m.hook() == hook)?))
            });
            result = result.and(match parsed {
                Some((index, _)) if wanted.contains(&index) => Ok(()),
                Some((index, mode)) => self.release(index, mode),
                None => links::remove(&entry.path()),
            });
        }
        result
    }

    /// Takes the programs off every interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach_all(&mut self) -> Result<(), DatapathError> {
        self.keep_only(&[])
    }
}

/// Do the interface's packets meet this build's program? A clsact filter can't be asked for; it is replaced by itself.
fn in_place(
    object: &mut Object,
    interface: &Interface,
    mode: Mode,
    variant: Variant,
) -> Result<bool, DatapathError> {
    let asked = failed(interface, "asking for the program");
    Ok(match mode {
        Mode::XdpNative | Mode::XdpGeneric => {
            let program = object.xdp(xdp_program(interface, variant))?;
            interface.xdp == Some(program.info().map_err(asked)?.id())
        }
        Mode::Tcx | Mode::TcxEgress => {
            let id = object.tc(tc_program(mode, variant))?.info().map_err(asked)?.id();
            links::tcx_programs(interface, mode.way()).contains(&id)
        }
        Mode::Clsact | Mode::ClsactEgress => false,
    })
}

/// Puts the program in place of the one that a pinned link carries. False: there is no such link.
fn swap_xdp(program: &mut Xdp, pin: &Path, interface: &Interface) -> Result<bool, DatapathError> {
    let Some(link) = links::pinned(pin, interface, || interface.xdp.into_iter().collect())? else {
        return Ok(false);
    };
    let link: XdpLink = link.try_into().map_err(failed(interface, "XDP"))?;
    let id = program.attach_to_link(link).map_err(failed(interface, "swapping the XDP program"))?;
    // The pin keeps the link; this handle may go.
    drop(program.take_link(id).map_err(failed(interface, "XDP"))?);
    Ok(true)
}

/// The same for TCX.
fn swap_tcx(
    program: &mut SchedClassifier,
    pin: &Path,
    interface: &Interface,
    mode: Mode,
) -> Result<bool, DatapathError> {
    let there = || links::tcx_programs(interface, mode.way());
    let Some(link) = links::pinned(pin, interface, there)? else { return Ok(false) };
    let link: SchedClassifierLink = link.try_into().map_err(failed(interface, "TCX"))?;
    let id = program.attach_to_link(link).map_err(failed(interface, "swapping the TCX program"))?;
    drop(program.take_link(id).map_err(failed(interface, "TCX"))?);
    Ok(true)
}
