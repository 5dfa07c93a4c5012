//! The first start of another build: its maps come into force, then its programs.

use std::sync::PoisonError;

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
        if !self.object().is_upgrade() {
            self.attach(seen);
            return Ok(());
        }
        let found = match &seen.interfaces {
            Ok(found) if !self.blind => found,
            Ok(_) => anyhow::bail!(
                "another build is in force, and nobody knows where this one's programs are to be: mend the config file and \
                 start again. Nothing was touched, and the programs there go on"
            ),
            Err(e) => anyhow::bail!("{e}"),
        };
        let direct = has_direct(&self.shared.read().desired);
        {
            let mut object = self.object();
            Hooks::load(&mut object, &self.config.sockets)?;
            for interface in found.iter().filter(|interface| interface.unfit.is_none()) {
                if let Some(rule) =
                    self.config.interfaces.iter().find(|r| r.matcher.is_match(&interface.name))
                {
                    Attachments::load(&mut object, interface, rule.attach, rule.variant(), direct)?;
                }
            }
            object.take_over(pins)?;
        }
        self.attach(seen);
        Ok(self.object().taken_over(pins)?)
    }

    fn object(&self) -> std::sync::MutexGuard<'_, crate::datapath::object::Object> {
        self.shared.object.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
