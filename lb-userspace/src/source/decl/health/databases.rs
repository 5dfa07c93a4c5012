//! Checks that speak a database's own protocol.

use lb_probes::{MySql, Postgres, Redis, postgres, redis};

use super::HealthDecl;
use crate::{
    model::{ModelError, Probe},
    source::decl::password::Password,
};

const REDIS: [(&str, redis::Role); 2] = [("master", redis::Role::Master), ("replica", redis::Role::Replica)];
const POSTGRES: [(&str, postgres::Role); 2] =
    [("primary", postgres::Role::Primary), ("standby", postgres::Role::Standby)];

impl HealthDecl {
    pub(super) fn redis(&self) -> Result<Probe, ModelError> {
        let role = self.role(&REDIS, "master or replica, or leave it out")?;
        let redis = Redis { password: self.secret()?, user: self.user()?, role };
        redis.validate().map_err(invalid)?;
        Ok(Probe::Redis(redis))
    }

    pub(super) fn postgres(&self) -> Result<Probe, ModelError> {
        let role = self.role(&POSTGRES, "primary or standby, or leave it out")?;
        let user = self.user()?.ok_or(ModelError::NoUser)?;
        let known = "a database's name, or leave it out";
        let database = filled("health.database", &self.database, known)?;
        let postgres = Postgres { user, database, role, password: self.secret()? };
        postgres.validate().map_err(invalid)?;
        Ok(Probe::Postgres(postgres))
    }

    pub(super) fn mysql(&self) -> Result<Probe, ModelError> {
        let mysql = MySql { user: self.user()? };
        mysql.validate().map_err(invalid)?;
        Ok(Probe::MySql(mysql))
    }

    fn user(&self) -> Result<Option<String>, ModelError> {
        filled("health.user", &self.user, "a user's name, or leave it out")
    }

    fn secret(&self) -> Result<Option<String>, ModelError> {
        self.password.as_ref().map(Password::secret).transpose()
    }

    fn role<T: Copy>(&self, roles: &[(&str, T)], known: &'static str) -> Result<Option<T>, ModelError> {
        let Some(text) = &self.role else { return Ok(None) };
        let role = roles.iter().find(|(name, _)| name == text).map(|(_, role)| *role);
        role.map(Some).ok_or_else(|| ModelError::NotKnown { what: "health.role", text: text.clone(), known })
    }
}

/// Text that may be left out, but not be empty.
fn filled(
    what: &'static str,
    text: &Option<String>,
    known: &'static str,
) -> Result<Option<String>, ModelError> {
    match text {
        Some(text) if text.is_empty() => Err(ModelError::NotKnown { what, text: text.clone(), known }),
        text => Ok(text.clone()),
    }
}

const fn invalid(why: lb_probes::Invalid) -> ModelError {
    ModelError::Probe { what: "health", why }
}

fn name<T: Copy + PartialEq>(roles: &[(&str, T)], role: Option<T>) -> Option<String> {
    roles.iter().find(|(_, known)| Some(*known) == role).map(|(name, _)| (*name).into())
}

/// As declared, without the password.
pub(super) fn of_redis(redis: &Redis, decl: HealthDecl) -> HealthDecl {
    let Redis { password, user, role } = redis;
    HealthDecl {
        kind: "redis".into(),
        user: user.clone(),
        password: password.as_ref().map(|_| Password::shown()),
        role: name(&REDIS, *role),
        ..decl
    }
}

/// As declared, without the password.
pub(super) fn of_postgres(postgres: &Postgres, decl: HealthDecl) -> HealthDecl {
    let Postgres { user, database, role, password } = postgres;
    HealthDecl {
        kind: "postgres".into(),
        user: Some(user.clone()),
        database: database.clone(),
        password: password.as_ref().map(|_| Password::shown()),
        role: name(&POSTGRES, *role),
        ..decl
    }
}

#[cfg(test)]
mod tests;
