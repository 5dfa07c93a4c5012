//! Of the version that tests take for a later one: a task panics when the file that `FLOWPIN_PANIC` names has its name in it.

use std::{path::Path, time::Duration};

/// How often the file is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Goes on with a task until it is provoked.
pub async fn beside(name: &'static str, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = provoked(name) => panic!("provoked"),
    }
}

async fn provoked(name: &str) {
    let Some(path) = std::env::var_os("FLOWPIN_PANIC") else { return std::future::pending().await };
    let path = Path::new(&path);
    while !std::fs::read_to_string(path).is_ok_and(|text| text == name) || std::fs::remove_file(path).is_err()
    {
        tokio::time::sleep(LOOK).await;
    }
}
