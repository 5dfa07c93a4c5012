//! The config file.

use flowpin::source::config;

use crate::assert_one_line;

/// It can be read, or one line says why not. So it is with each of its services, and with each of these that can be read
/// it is whether it is valid.
pub fn config(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    match config::parse(text, "flowpin.toml") {
        Ok(config) => {
            for service in config.services.iter() {
                match service.spec.as_ref().map(|spec| spec.validate()) {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => assert_one_line(&e.to_string()),
                    Err(why) => assert_one_line(why),
                }
            }
        }
        Err(e) => assert_one_line(&e.to_string()),
    }
}
