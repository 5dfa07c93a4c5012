//! How backends are checked, as written.

use std::time::Duration;

use http::uri::Authority;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::ServerName;

use lb_common::expiry::Timeouts;

use super::{
    number,
    password::Password,
    paths::Paths,
    statuses::Statuses,
    talk::{self, StepDecl},
    time::Time,
};
use crate::model::{HealthSpec, ModelError, Probe};

mod databases;

/// Of intervals and timeouts: more often would be a load.
const SHORTEST: Duration = Duration::from_millis(100);
/// As of other durations.
const LONGEST: Duration = Duration::from_millis(Timeouts::MAX_MS);
/// Most checks in a row that it may take to change a backend's health.
const MOST_IN_A_ROW: i64 = 1_000;

/// What checks can be.
pub const TYPES: [&str; 10] =
    ["tcp", "http", "https", "grpc", "udp", "redis", "postgres", "mysql", "exec", "none"];

/// What only some types of checks have, and which.
pub const OF_TYPE: [(&str, &[&str]); 11] = [
    ("path", &["http", "https"]),
    ("host", &["http", "https"]),
    ("expect", &["http", "https"]),
    ("service", &["grpc"]),
    ("send", &["udp"]),
    ("talk", &["tcp"]),
    ("user", &["redis", "postgres", "mysql"]),
    ("password", &["redis", "postgres"]),
    ("database", &["postgres"]),
    ("role", &["redis", "postgres"]),
    ("command", &["exec"]),
];

/// How backends are checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthDecl {
    /// `tcp`, `http`, `https`, `grpc`, `udp`, `redis`, `postgres`, `mysql`, `exec` or `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The port that is checked; default: the backend's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// From one check to the next, from `100ms`; default `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    /// How long an answer may take, from `100ms`; default `1s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// Good checks in a row that bring a backend back; default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<i64>,
    /// Bad checks in a row that take it out; default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<i64>,
    /// HTTP: the path, or several as `["/live", "/ready"]`, each of which must be answered with a good status; default
    /// `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Paths>,
    /// HTTP: the host asked for; default: the backend's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// HTTP: the status that it must answer with, or several, as `"200-399"` or `"200,404"`; default 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Statuses>,
    /// gRPC: the service asked about; default: the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// UDP: what is sent to it, and it must answer; default: an empty datagram, which it mustn't refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// TCP: what is said to it and what it must answer, step by step; default: nothing, a connection is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub talk: Option<Vec<StepDecl>>,
    /// Redis, PostgreSQL, MySQL: who logs in. PostgreSQL needs one, Redis with a password only; of MySQL it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Redis, and PostgreSQL with a role: the password. It is shown as `***`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// PostgreSQL: the database; default: the one named as the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Redis: `master` or `replica`, PostgreSQL: `primary` or `standby`: what it must be; default: either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Exec: the path of a program and its arguments, in which `{address}` and `{port}` are the backend's. Status 0 is good.
    /// Only in the config file, with `exec_checks` in `[agent]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Do refused and unanswered connections of clients take a backend out as well? Default: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// If less than so many of a hundred backends are healthy, all are used; default 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<i64>,
}

impl HealthDecl {
    /// As a service has it; `None`: no checks.
    ///
    /// # Errors
    /// Something of it is out of range, or of another type.
    pub fn spec(&self) -> Result<Option<HealthSpec>, ModelError> {
        let row = 1..=MOST_IN_A_ROW;
        let rise = number("health.rise", self.rise, row.clone(), "1 to 1000")?.unwrap_or(2);
        let fall = number("health.fall", self.fall, row, "1 to 1000")?.unwrap_or(3);
        let panic = number("health.panic", self.panic, 0..=100, "0 to 100 (%)")?.unwrap_or(0);
        let port = number("health.port", self.port, 1..=65_535, "1 to 65535")?;
        let pause = |time: &Option<Time>, what| {
            time.as_ref()
                .map(|time| time.between(what, SHORTEST, LONGEST, "from 100ms to 20days"))
                .transpose()
        };
        let (interval, timeout) =
            (pause(&self.interval, "health.interval")?, pause(&self.timeout, "health.timeout")?);
        if TYPES.contains(&self.kind.as_str()) {
            self.only_of_its_type()?;
        }
        let probe = match self.kind.as_str() {
            "none" => None,
            "tcp" => Some(self.talk.as_deref().map_or(Ok(Probe::Tcp), talk::probe)?),
            "http" => Some(self.http(false)?),
            "https" => Some(self.http(true)?),
            "grpc" => Some(Probe::Grpc { service: self.service.clone().unwrap_or_default() }),
            "udp" => Some(Probe::Udp { send: self.send.clone().unwrap_or_default() }),
            "redis" => Some(self.redis()?),
            "postgres" => Some(self.postgres()?),
            "mysql" => Some(self.mysql()?),
            "exec" => Some(self.exec()?),
            _ => {
                let known = "tcp, http, https, grpc, udp, redis, postgres, mysql, exec or none";
                return Err(ModelError::NotKnown { what: "health.type", text: self.kind.clone(), known });
            }
        };
        let second = Duration::from_secs(1);
        Ok(probe.map(|probe| HealthSpec {
            probe,
            port,
            interval: interval.unwrap_or(2 * second),
            timeout: timeout.unwrap_or(second),
            rise,
            fall,
            passive: self.passive.unwrap_or(true),
            panic,
        }))
    }

    fn http(&self, tls: bool) -> Result<Probe, ModelError> {
        let paths = self.path.as_ref().map_or_else(|| Ok(vec!["/".into()]), Paths::list)?;
        let named =
            |host: &str| host.parse::<Authority>().is_ok() && (!tls || ServerName::try_from(host).is_ok());
        if let Some(host) = self.host.as_deref().filter(|host| !named(host)) {
            let known = "a name like app.example; a port may follow, but not with https";
            return Err(ModelError::NotKnown { what: "health.host", text: host.into(), known });
        }
        let expect =
            self.expect.as_ref().map(Statuses::ranges).transpose()?.unwrap_or_else(|| vec![200..=200]);
        Ok(Probe::Http { tls, paths, host: self.host.clone(), expect })
    }

    /// Does it run a program?
    pub fn is_exec(&self) -> bool {
        self.kind == "exec"
    }

    fn exec(&self) -> Result<Probe, ModelError> {
        let command = self.command.clone().unwrap_or_default();
        let path = command.first().is_some_and(|program| program.starts_with('/'));
        if !path || command.iter().any(|part| part.contains('\0')) {
            let known = "the path of a program and its arguments, as [\"/usr/local/bin/check\", \"{address}\", \"{port}\"]; no \
                         shell looks at them";
            let text = serde_json::to_string(&command).unwrap_or_default();
            return Err(ModelError::NotKnown { what: "health.command", text, known });
        }
        Ok(Probe::Exec { command })
    }

    /// What only another type has isn't there.
    fn only_of_its_type(&self) -> Result<(), ModelError> {
        let given = [
            ("path", self.path.is_some()),
            ("host", self.host.is_some()),
            ("expect", self.expect.is_some()),
            ("service", self.service.is_some()),
            ("send", self.send.is_some()),
            ("talk", self.talk.is_some()),
            ("user", self.user.is_some()),
            ("password", self.password.is_some()),
            ("database", self.database.is_some()),
            ("role", self.role.is_some()),
            ("command", self.command.is_some()),
        ];
        for (key, types) in OF_TYPE {
            if !types.contains(&self.kind.as_str()) && given.contains(&(key, true)) {
                return Err(ModelError::NotOfType { key, kind: self.kind.clone(), types });
            }
        }
        Ok(())
    }
}

/// With all that it has, but for the password, of which it says that there is one.
impl From<&HealthSpec> for HealthDecl {
    fn from(spec: &HealthSpec) -> Self {
        let HealthSpec { probe, port, interval, timeout, rise, fall, passive, panic } = spec;
        let decl = Self {
            kind: "tcp".into(),
            port: port.map(Into::into),
            interval: Some((*interval).into()),
            timeout: Some((*timeout).into()),
            rise: Some((*rise).into()),
            fall: Some((*fall).into()),
            passive: Some(*passive),
            panic: Some((*panic).into()),
            ..Self::default()
        };
        match probe {
            Probe::Tcp => decl,
            Probe::Http { tls, paths, host, expect } => Self {
                kind: if *tls { "https" } else { "http" }.into(),
                path: Some(Paths::of(paths)),
                host: host.clone(),
                expect: Some(Statuses::of(expect)),
                ..decl
            },
            Probe::Grpc { service } => {
                let service = (!service.is_empty()).then(|| service.clone());
                Self { kind: "grpc".into(), service, ..decl }
            }
            Probe::Udp { send } => {
                let send = (!send.is_empty()).then(|| send.clone());
                Self { kind: "udp".into(), send, ..decl }
            }
            Probe::Talk(conversation) => Self { talk: Some(talk::steps(conversation)), ..decl },
            Probe::Redis(redis) => databases::of_redis(redis, decl),
            Probe::Postgres(postgres) => databases::of_postgres(postgres, decl),
            Probe::Exec { command } => Self { kind: "exec".into(), command: Some(command.clone()), ..decl },
            Probe::MySql(mysql) => Self { kind: "mysql".into(), user: mysql.user.clone(), ..decl },
        }
    }
}
