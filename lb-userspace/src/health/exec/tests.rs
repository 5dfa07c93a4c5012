use std::path::Path;

use super::*;

const LATE: &str = "no end in time";

async fn sh(script: &str, ms: u64) -> Result<(), Failure> {
    let command = ["/bin/sh", "-c", script, "check", "{address}", "{port}"].map(String::from);
    let to = "[fd00::11]:5432".parse().expect("an address");
    run(&command, "shop/db", to, Instant::now() + Duration::from_millis(ms), LATE).await
}

fn there(words: &str) -> Result<(), Failure> {
    Err(Failure::There(words.into()))
}

#[tokio::test]
async fn the_status_decides_and_the_first_line_says_why() {
    assert_eq!(sh("echo all is well; exit 0", 5_000).await, Ok(()));
    assert_eq!(sh("exit 3", 5_000).await, there("exit status 3"));
    assert_eq!(
        sh("echo; echo ' lag 90s '; echo more; exit 2", 5_000).await,
        there("lag 90s (exit status 2)")
    );
    assert_eq!(sh("echo out; echo err >&2; exit 1", 5_000).await, there("err (exit status 1)"));
    assert_eq!(sh("kill -TERM $$", 5_000).await, there("signal 15"));
    // More than a pipe holds, of which the beginning is kept.
    let much = sh("head -c 1000000 /dev/zero | tr '\\0' x; exit 1", 5_000).await;
    assert_eq!(much, there(&format!("{} (exit status 1)", "x".repeat(KEPT))));
}

#[tokio::test]
async fn it_knows_whom_it_is_about_and_nothing_else() {
    let given = r#"test "$1 $2" = "fd00::11 5432" && test "$FLOWPIN_BACKEND_ADDRESS" = "$1" &&
        test "$FLOWPIN_BACKEND_PORT" = "$2" && test "$FLOWPIN_SERVICE" = shop/db"#;
    assert_eq!(sh(given, 5_000).await, Ok(()));
    let found = sh("env | sort | cut -d= -f1 | tr '\\n' ' ' >&2; exit 1", 5_000).await;
    let Err(Failure::There(found)) = found else { panic!("{found:?}") };
    // The shell's own are among them.
    let names: Vec<&str> =
        found.split_whitespace().filter(|n| !matches!(*n, "PWD" | "OLDPWD" | "_" | "SHLVL")).collect();
    let expected = [
        "FLOWPIN_BACKEND_ADDRESS",
        "FLOWPIN_BACKEND_PORT",
        "FLOWPIN_SERVICE",
        "PATH",
        "(exit",
        "status",
        "1)",
    ];
    assert_eq!(names, expected);
    assert_eq!(sh(r#"test "$(pwd)" = / && ! read line"#, 5_000).await, Ok(()), "nothing is to be read");
}

/// Is there a process with this number that isn't only waited for?
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn when_its_time_is_over_all_that_it_started_ends() {
    let began = Instant::now();
    // The shell's child holds its output as well.
    let why = sh("sleep 600 & echo $! $$; wait", 300).await;
    assert!(began.elapsed() < Duration::from_secs(60));
    let Err(Failure::There(why)) = why else { panic!("{why:?}") };
    let pids = why.strip_prefix("no end in time; it said: ").expect("it says what had come");
    for pid in pids.split_whitespace() {
        while runs(pid) {
            assert!(began.elapsed() < Duration::from_secs(60), "{pid} is still there");
            tokio::task::yield_now().await;
        }
    }
    // A check that isn't wanted any more ends too.
    let (left, id) = (tempfile::tempdir().expect("a directory"), "pid");
    let file = left.path().join(id);
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let check = sh(&script, 600_000);
    let written = async {
        while !file.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = check => panic!("it sleeps"),
        () = written => {}
    }
    let pid = std::fs::read_to_string(&file).expect("it was written");
    while runs(pid.trim()) {
        assert!(began.elapsed() < Duration::from_secs(60), "{pid} is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_it_leaves_behind_isn_t_waited_for() {
    let began = Instant::now();
    let why = sh("sleep 600 & echo $! >&2; exit 1", 60_000).await;
    assert!(began.elapsed() < Duration::from_secs(30));
    let Err(Failure::There(why)) = why else { panic!("{why:?}") };
    let pid = why.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a process");
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
}

#[tokio::test]
async fn what_can_t_be_run_says_nothing_of_the_backend() {
    let to = "10.0.0.1:80".parse().expect("an address");
    let late = Instant::now() + Duration::from_secs(5);
    for program in ["/nonexistent/check", "/etc/passwd", "/"] {
        let why = run(&[program.into()], "s", to, late, LATE).await;
        assert!(matches!(&why, Err(Failure::Here(why)) if why.starts_with(program)), "{why:?}");
    }
}

/// timeout(1) with `-s KILL` ends itself so.
#[tokio::test]
async fn one_that_is_killed_has_failed() {
    let why = sh("kill -KILL $$", 5_000).await;
    assert!(matches!(&why, Err(Failure::There(why)) if why.starts_with("killed")), "{why:?}");
}
