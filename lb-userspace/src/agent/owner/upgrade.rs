//! The first start of another build: its maps come into force, then its programs.

use super::{Owner, places::has_direct};
use crate::{
    agent::seen::Seen,
    datapath::{attach::Attachments, pin::PinDir, sockets::Hooks},
};

impl Owner {
    /// Attaches for the first time. If the maps were another build's, this one's are put in force before, once every program that is to be attached has
    /// been loaded: with a refused one half of the interfaces would have maps of their own.
    ///
    /// # Errors
    /// Another build's maps can't be taken over; it is in force as it was.
    pub fn attach_first(&mut self, seen: &Seen, pins: &PinDir) -> anyhow::Result<()> {
        if !self.shared.object().is_upgrade() {
            self.attach(seen);
            return Ok(());
        }
        match &seen.interfaces {
            Ok(_) if !self.blind => {}
            Ok(_) => anyhow::bail!(
                "another build is in force, and nobody knows where this one's programs are to be: mend the config file and \
                 start again. Nothing was touched, and the programs there go on"
            ),
            Err(e) => anyhow::bail!("{e}"),
        };
        let direct = has_direct(&self.shared.read().desired);
        {
            let mut object = self.shared.object();
            Hooks::load(&mut object, &self.config.sockets)?;
            for (interface, rule) in
                seen.ruled(&self.config).filter(|(interface, _)| interface.unfit.is_none())
            {
                Attachments::load(&mut object, interface, rule.attach, rule.variant(), direct)?;
            }
            object.take_over(pins)?;
        }
        self.attach(seen);
        Ok(self.shared.object().taken_over(pins)?)
    }
}
