//! The metrics page, for scrapers: its figures are read by one at a time, and shared for a second.

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::handle::{Handle, blocking};
use crate::{
    api::error::ApiError,
    observe::metrics::{Figures, Page},
};

/// How long figures are good for other scrapers.
const SHARED: Duration = Duration::from_secs(1);

/// The figures of late; none a second after they were read, so that they take no memory between scrapes.
pub type Recent = Arc<Mutex<Option<Figures>>>;

impl Handle {
    /// The page.
    ///
    /// # Errors
    /// The kernel refuses.
    #[expect(clippy::disallowed_methods, reason = "it waits for a second and is over")]
    pub async fn page(&self) -> Result<Page, ApiError> {
        let mut recent = self.recent.lock().await;
        let figures = match &*recent {
            Some(figures) => figures.clone(),
            None => {
                let shared = self.shared.clone();
                let read = blocking(move || shared.figures()).await?;
                let figures = read.map_err(|e| ApiError::Failed(e.to_string()))?;
                *recent = Some(figures.clone());
                let later = self.recent.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(SHARED).await;
                    *later.lock().await = None;
                });
                figures
            }
        };
        drop(recent);
        Ok(Page::new(figures, self.shared.clock))
    }
}
