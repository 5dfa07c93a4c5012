//! What a viewer wants to see, and in which order.

use std::{cmp::Reverse, sync::Arc};

use serde::Deserialize;

use crate::{
    api::{error::ApiError, types::BackendView},
    observe::{Overview, overview::Entry},
};

/// Longest search, in characters.
const SEARCH: usize = 100;
/// Services on a page.
pub const SERVICES: usize = 50;
/// Backends on a page of a service.
pub const BACKENDS: usize = 100;
/// More than there can be of either.
const PAGES: u32 = 10_000;

/// `GET /ui/events`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsQuery {
    /// Only what has this in its name, VIPs, ports or backends.
    search: String,
    /// See [`Sort`].
    sort: String,
    /// From 1.
    page: String,
    /// Its backends; otherwise services are shown.
    service: String,
}

/// The order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sort {
    /// By name.
    #[default]
    Name,
    /// By open connections, most first.
    Active,
    /// By connections so far, most first.
    Total,
    /// By imbalance, greatest first.
    Imbalance,
    /// By unhealthy, then by drained backends, most first.
    Health,
}

/// What a viewer wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// In lower case; empty: everything.
    pub search: String,
    /// The order.
    pub sort: Sort,
    /// From 0. Of one that is beyond the end, the last is shown.
    pub page: usize,
    /// The backends of this service.
    pub service: Option<String>,
}

impl TryFrom<EventsQuery> for View {
    type Error = ApiError;

    fn try_from(query: EventsQuery) -> Result<Self, ApiError> {
        let EventsQuery { search, sort, page, service } = query;
        let length = search.chars().count();
        if length > SEARCH {
            return Err(ApiError::Invalid(format!(
                "the search is {length} characters long; use at most {SEARCH}"
            )));
        }
        let sort = match sort.as_str() {
            "" | "name" => Sort::Name,
            "active" => Sort::Active,
            "total" => Sort::Total,
            "imbalance" => Sort::Imbalance,
            "health" => Sort::Health,
            _ => {
                return Err(ApiError::Invalid(format!(
                    "sort \"{sort}\" is not known; use name, active, total, imbalance or health"
                )));
            }
        };
        let page = match page.as_str() {
            "" => 1,
            text => text.parse().ok().filter(|page| (1..=PAGES).contains(page)).ok_or_else(|| {
                ApiError::Invalid(format!("page \"{text}\" is not a page; use 1 to {PAGES}"))
            })?,
        };
        Ok(Self {
            search: search.trim().to_lowercase(),
            sort,
            page: page as usize - 1,
            service: (!service.is_empty()).then_some(service),
        })
    }
}

/// A part of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// What is on the page.
    pub items: Vec<T>,
    /// From 0.
    pub page: usize,
    /// How many there are, 1 at least.
    pub pages: usize,
    /// What all pages have.
    pub found: usize,
}

impl View {
    /// The services on the page.
    pub fn services(&self, overview: &Overview) -> Part<Arc<str>> {
        let all = overview.services.iter();
        let mut found: Vec<&Entry> = all.filter(|entry| entry.text.contains(&self.search)).collect();
        // They are in order by name, and stay so among equals.
        match self.sort {
            Sort::Name => {}
            Sort::Active => found.sort_by_key(|entry| Reverse(entry.active)),
            Sort::Total => found.sort_by_key(|entry| Reverse(entry.total)),
            Sort::Imbalance => {
                found.sort_by(|a, b| b.imbalance.unwrap_or(0.0).total_cmp(&a.imbalance.unwrap_or(0.0)));
            }
            Sort::Health => found.sort_by_key(|entry| Reverse((entry.unhealthy, entry.drained))),
        }
        self.part(&found, SERVICES, |entry| entry.name.clone())
    }

    /// The backends on the page.
    pub fn backends<'a>(&self, all: &'a [BackendView]) -> Part<&'a BackendView> {
        let mut found: Vec<&BackendView> =
            all.iter().filter(|backend| backend.address.to_lowercase().contains(&self.search)).collect();
        match self.sort {
            // How unequal a service's backends are is seen by their connections.
            Sort::Active | Sort::Imbalance => found.sort_by_key(|b| Reverse(b.active_connections)),
            Sort::Total => found.sort_by_key(|b| Reverse(b.total_connections)),
            Sort::Health => found.sort_by_key(|b| (b.healthy, b.state == "active")),
            Sort::Name => {}
        }
        self.part(&found, BACKENDS, |backend| *backend)
    }

    fn part<T, U>(&self, found: &[T], size: usize, make: impl Fn(&T) -> U) -> Part<U> {
        let pages = found.len().div_ceil(size).max(1);
        let page = self.page.min(pages - 1);
        let items = found.iter().skip(page * size).take(size).map(make).collect();
        Part { items, page, pages, found: found.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(search: &str, sort: &str, page: &str) -> Result<View, ApiError> {
        let [search, sort, page] = [search, sort, page].map(String::from);
        View::try_from(EventsQuery { search, sort, page, service: String::new() })
    }

    fn overview(services: u64) -> Overview {
        let entry = |i| Entry {
            name: format!("s{i:05}").into(),
            text: format!("s{i:05} 10.96.0.{} 80/tcp", i % 7),
            active: i % 100,
            total: i,
            imbalance: (i % 3 == 0).then_some(i as f64),
            unhealthy: i % 11,
            drained: 0,
        };
        Overview { services: (0..services).map(entry).collect(), ..Overview::default() }
    }

    fn names(part: &Part<Arc<str>>) -> Vec<&str> {
        part.items.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn what_cannot_be_shown_gets_one_sentence() {
        for (search, sort, page, wanted) in [
            ("", "", "0", "page \"0\" is not a page; use 1 to 10000"),
            ("", "", "-1", "page \"-1\" is not a page; use 1 to 10000"),
            ("", "", "10001", "page \"10001\" is not a page; use 1 to 10000"),
            ("", "", "two", "page \"two\" is not a page; use 1 to 10000"),
            ("", "size", "", "sort \"size\" is not known; use name, active, total, imbalance or health"),
            (&"x".repeat(101), "", "", "the search is 101 characters long; use at most 100"),
        ] {
            assert_eq!(view(search, sort, page), Err(ApiError::Invalid(wanted.into())));
        }
        assert!(view(&"ü".repeat(100), "health", "10000").is_ok());
    }

    #[test]
    fn pages_are_parts_of_what_is_found() {
        let overview = overview(10_000);
        let first = view("", "", "").expect("a view").services(&overview);
        assert_eq!((first.items.len(), first.page, first.pages, first.found), (SERVICES, 0, 200, 10_000));
        assert_eq!(names(&first)[..2], ["s00000", "s00001"]);
        let last = view("", "name", "200").expect("a view").services(&overview);
        assert_eq!(names(&last).last(), Some(&"s09999"));
        let beyond = view("", "", "10000").expect("a view").services(&overview);
        assert_eq!(beyond, last);
        let found = view(" S0999 ", "", "").expect("a view").services(&overview);
        assert_eq!((names(&found).len(), found.found, found.pages), (10, 10, 1));
        let none = view("nothing", "", "3").expect("a view").services(&overview);
        assert_eq!((none.items.len(), none.page, none.pages, none.found), (0, 0, 1, 0));
    }

    #[test]
    fn orders_have_the_most_first_and_are_stable() {
        let overview = overview(1_000);
        for (sort, wanted) in [
            ("active", ["s00099", "s00199"]),
            ("total", ["s00999", "s00998"]),
            ("imbalance", ["s00999", "s00996"]),
            ("health", ["s00010", "s00021"]),
        ] {
            let shown = view("", sort, "").expect("a view").services(&overview);
            assert_eq!(names(&shown)[..2], wanted, "{sort}");
        }
    }
}
