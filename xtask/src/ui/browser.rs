//! Headless Chromium, by its debugging protocol over a pipe: JSON messages with a NUL after each.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::world::World;

/// How long anything may take that a page is asked.
const LONG: Duration = Duration::from_secs(60);

/// The browser takes requests at descriptor 3 and answers at 4.
const PIPES: &str = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >&2";

/// See the module. It ends with this.
pub struct Browser {
    child: Child,
    requests: ChildStdin,
    messages: Receiver<Value>,
    asked: u64,
    /// Of its one page.
    session: Option<String>,
    /// What the page's console said that was wrong.
    errors: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// In the node's namespace, with a page that shows nothing yet.
    pub fn start(world: &World) -> anyhow::Result<Self> {
        let log = fs::File::create(world.dir.join("chromium.log"))?;
        let mut child = world
            .inside("sh")
            .args(["-c", PIPES, "sh", "--headless", "--no-sandbox", "--remote-debugging-pipe"])
            .args(["--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", world.dir.join("profile").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("chromium: run scripts/setup ui")?;
        let requests = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        let (send, messages) = channel();
        thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let parsed = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if send.send(parsed).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, requests, messages, asked: 0, session: None, errors: Vec::new() };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(String::from);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Asks, and waits for the answer.
    pub fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.asked += 1;
        let mut request = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut text = serde_json::to_vec(&request)?;
        text.push(0);
        self.requests.write_all(&text).context("chromium has ended; see its log")?;
        let until = Instant::now() + LONG;
        loop {
            let message = match self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => bail!("{method} {params}: no answer for {LONG:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("{method}: chromium has ended; see its log"),
            };
            if message["id"] == json!(self.asked) {
                if let Some(error) = message.get("error") {
                    bail!("{method} {params}: {error}");
                }
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    /// Remembers what a console would show in red.
    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        let wrong = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => params["type"] == "error" || params["type"] == "warning",
            Some("Log.entryAdded") => {
                params["entry"]["level"] == "error" || params["entry"]["level"] == "warning"
            }
            _ => false,
        };
        if wrong {
            self.errors.push(params.to_string());
        }
    }

    /// Insists that the console shows nothing red, now that it has said all that it has to say.
    pub fn is_clean(&mut self) -> anyhow::Result<()> {
        self.eval("1")?;
        if !self.errors.is_empty() {
            bail!("the page's console has errors:\n{}", self.errors.join("\n"));
        }
        Ok(())
    }

    /// Goes to an address of the metrics listener.
    pub fn open(&mut self, path: &str) -> anyhow::Result<()> {
        self.call("Page.navigate", json!({"url": format!("http://127.0.0.1:9479{path}")}))?;
        self.wait("a first tick", "document.body && document.body.dataset.at")
    }

    /// The value of an expression, or of what it promises.
    pub fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, what: &str, expression: &str) -> anyhow::Result<()> {
        let until = Instant::now() + LONG;
        // Half a second at a time, by the page's own clock: it may be another page by then.
        let script = format!(
            "new Promise((done) => {{ let left = 10; const look = () => ({expression}) ? done(true) \
             : left-- ? setTimeout(look, 50) : done(false); look(); }})"
        );
        loop {
            // A page that is being left takes its promises along.
            if matches!(self.eval(&script), Ok(Value::Bool(true))) {
                return Ok(());
            }
            if Instant::now() > until {
                let shown = self.eval("document.body.innerText")?;
                bail!("{what}: not within {LONG:?}; the page shows:\n{}", shown.as_str().unwrap_or_default());
            }
        }
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str, code: u32) -> anyhow::Result<()> {
        let text = if key.len() == 1 {
            key
        } else if key == "Enter" {
            "\r"
        } else {
            ""
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let params = json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", params)?;
        }
        Ok(())
    }

    /// As seen by somebody who likes it `light` or `dark`, in a window of so many pixels.
    pub fn look(&mut self, scheme: &str, width: u32, height: u32) -> anyhow::Result<()> {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}))?;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        Ok(())
    }

    /// Writes what is to be seen to a file.
    pub fn picture(&mut self, file: &Path) -> anyhow::Result<()> {
        let shot =
            self.call("Page.captureScreenshot", json!({"format": "png", "optimizeForSpeed": false}))?;
        let data = shot["data"].as_str().context("a picture")?;
        fs::write(file, STANDARD.decode(data)?).with_context(|| file.display().to_string())
    }
}
