use super::*;
use crate::{
    model::{HealthSpec, Origin, Protocol},
    source::{Runtime, config, decl::ServiceDecl},
};

/// A health table as a file has it.
fn read(table: &str) -> Result<HealthDecl, String> {
    toml::from_str::<toml::Table>(&format!("health = {table}"))
        .and_then(|mut file| file.remove("health").expect("it is there").try_into())
        .map_err(|e| e.message().to_string())
}

fn spec(table: &str) -> Result<HealthSpec, String> {
    let spec = read(table)?.spec().map_err(|e| e.to_string())?;
    Ok(spec.expect("it is no none"))
}

#[test]
fn every_content_check_can_be_declared() {
    let probe = |table| spec(table).expect(table).probe;
    let redis = Redis { password: None, user: None, role: None };
    assert_eq!(probe(r#"{ type = "redis" }"#), Probe::Redis(redis.clone()));
    assert_eq!(
        probe(r#"{ type = "redis", role = "master", user = "probe", password = "s3cret" }"#),
        Probe::Redis(Redis {
            password: Some("s3cret".into()),
            user: Some("probe".into()),
            role: Some(redis::Role::Master)
        })
    );
    let role = Some(redis::Role::Replica);
    assert_eq!(probe(r#"{ type = "redis", role = "replica" }"#), Probe::Redis(Redis { role, ..redis }));
    let postgres = Postgres { user: "flowpin".into(), database: None, role: None, password: None };
    assert_eq!(probe(r#"{ type = "postgres", user = "flowpin" }"#), Probe::Postgres(postgres.clone()));
    assert_eq!(
        probe(
            r#"{ type = "postgres", user = "flowpin", database = "app", role = "standby", password = "s" }"#
        ),
        Probe::Postgres(Postgres {
            database: Some("app".into()),
            role: Some(postgres::Role::Standby),
            password: Some("s".into()),
            ..postgres
        })
    );
    assert_eq!(probe(r#"{ type = "mysql" }"#), Probe::MySql(MySql { user: None }));
    let user = Some("flowpin".into());
    assert_eq!(probe(r#"{ type = "mysql", user = "flowpin" }"#), Probe::MySql(MySql { user }));
    let talk = r#"{ type = "tcp", talk = [{ send = 'PING\r\n' }, { expect = "+PONG" }, { matches = 'role:(master|slave)' }] }"#;
    assert!(matches!(probe(talk), Probe::Talk(conversation) if conversation.steps().len() == 3));
    for table in [talk, r#"{ type = "redis" }"#, r#"{ type = "mysql" }"#] {
        assert_eq!(probe(table).protocols(), [Protocol::Tcp]);
    }
}

#[test]
fn what_cant_be_is_named_with_the_remedy() {
    for (table, says) in [
        (r#"{ type = "redis", role = "primary" }"#, &["health.role \"primary\"", "master or replica"][..]),
        (r#"{ type = "postgres", user = "u", role = "master" }"#, &["\"master\"", "primary or standby"]),
        (r#"{ type = "mysql", role = "primary" }"#, &["health.role", "\"mysql\"", "type redis or postgres"]),
        (r#"{ type = "mysql", password = "s3cret" }"#, &["health.password", "leave it out"]),
        (r#"{ type = "redis", talk = [{ expect = "a" }] }"#, &["health.talk", "\"redis\"", "type tcp"]),
        (r#"{ type = "redis", database = "0" }"#, &["health.database", "type postgres"]),
        (r#"{ type = "redis", user = "probe" }"#, &["user", "no password", "leave the user out"]),
        (r#"{ type = "tcp", user = "u" }"#, &["health.user", "redis or postgres or mysql"]),
        (r#"{ type = "postgres" }"#, &["no user", "user = \"flowpin\""]),
        (r#"{ type = "postgres", user = "" }"#, &["health.user \"\"", "a user's name"]),
        (r#"{ type = "postgres", user = "u", database = "" }"#, &["health.database \"\""]),
        (r#"{ type = "postgres", user = "u\u0000" }"#, &["user", "NUL"]),
        (r#"{ type = "postgres", user = "u", password = "s3cret" }"#, &["password", "no role"]),
        (r#"{ type = "redis", password = "" }"#, &["health.password \"\""]),
        (r#"{ type = "redis", password = "***" }"#, &["\"***\"", "the password itself"]),
        (r#"{ type = "redis", password = 53213 }"#, &["in quotes"]),
        (r#"{ type = "redis", password = 53213.5 }"#, &["in quotes"]),
        (r#"{ type = "tcp", talk = [] }"#, &["health.talk []", "expect = \"+PONG\""]),
        (r#"{ type = "tcp", talk = [{ send = "PING" }] }"#, &["{\"send\":\"PING\"}", "expects nothing"]),
        (
            r#"{ type = "tcp", talk = [{ send = "", }, { expect = "a" }] }"#,
            &["health.talk", "nothing is sent"],
        ),
        (r#"{ type = "tcp", talk = [{ expect = "" }] }"#, &["health.talk", "even if nothing comes"]),
        (r#"{ type = "tcp", talk = [{ expect = 'a\q' }] }"#, &[r"`\q`", r"\xNN"]),
        (r#"{ type = "tcp", talk = [{ matches = "(" }] }"#, &["`(`", "regular expression"]),
        (r#"{ type = "tcp", talk = [{ send = "a", expect = "b" }] }"#, &["\\\"expect\\\"", "in each step"]),
        (r#"{ type = "tcp", talk = [{}] }"#, &["health.talk", "one of send, expect and matches"]),
        (r#"{ type = "tcp", talk = [{ sned = "a" }] }"#, &["sned", "send"]),
    ] {
        let error = spec(table).expect_err(table);
        assert!(says.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{table}: {error}");
        assert!(!error.contains("s3cret") && !error.contains("53213"), "{error}");
    }
}

/// It is in the files from which it has to come back, and in nothing else.
#[test]
fn a_password_is_kept_and_not_shown() {
    const TEXT: &str = "[[service]]\nname = \"r\"\nvip = \"10.96.0.10\"\nports = [\"6379/tcp\"]\n\
                        health = { type = \"redis\", password = \"s3cret\" }\n";
    let file = config::parse(TEXT, "f.toml").expect("it can be read");
    let spec = file.services[0].spec.as_ref().expect("it is good");
    let shown = ServiceDecl::from(spec.as_ref());
    let json = serde_json::to_value(&shown).expect("JSON");
    assert_eq!(json["health"]["password"], "***");
    let error = shown.spec("r", Origin::Cli).expect_err("that was no password").to_string();
    assert!(error.contains("write the password itself"), "{error}");
    let declared = ServiceDecl {
        vip: Some("10.96.0.10".into()),
        ports: vec!["6379/tcp".into()],
        health: Some(read(r#"{ type = "redis", password = "s3cret" }"#).expect("it can be read")),
        ..ServiceDecl::default()
    };
    for debug in [format!("{spec:?}"), format!("{declared:?}")] {
        assert!(debug.contains("***") && !debug.contains("s3cret"), "{debug}");
    }
    let mut runtime = Runtime::default();
    runtime.declare("r", declared).expect("it is good");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state.json");
    runtime.save(&path).expect("saved");
    assert_eq!(Runtime::load(&path).expect("it can be read"), runtime);
    assert!(std::fs::read_to_string(&path).expect("it is there").contains("s3cret"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
}
