//! What is said of a route besides what it does: enough for the server to serve it, and for the API's document to describe it.

use axum::{
    handler::Handler,
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// How a schema is made.
pub type Make = fn(&mut SchemaGenerator) -> Schema;

/// A method of a path.
pub struct Route<C> {
    /// `get`, `post`, ...
    pub method: &'static str,
    /// With its names in braces.
    pub path: &'static str,
    /// A sentence.
    pub summary: &'static str,
    /// Keys of the query.
    pub query: Option<Make>,
    /// The body.
    pub body: Option<Make>,
    /// The status of a yes.
    pub status: &'static str,
    /// The answer and its media type; `None`: it has none.
    pub answer: Option<(Make, &'static str)>,
    /// What it does.
    pub handler: MethodRouter<C>,
}

fn make<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl<C: Clone + Send + Sync + 'static> Route<C> {
    fn new<H: Handler<X, C>, X: 'static>(
        (method, filter): (&'static str, MethodFilter),
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        let handler = on(filter, handler);
        Self { method, path, summary, query: None, body: None, status: "200", answer: None, handler }
    }

    /// `GET`.
    pub fn get<H: Handler<X, C>, X: 'static>(path: &'static str, summary: &'static str, handler: H) -> Self {
        Self::new(("get", MethodFilter::GET), path, summary, handler)
    }
    /// `POST`.
    pub fn post<H: Handler<X, C>, X: 'static>(path: &'static str, summary: &'static str, handler: H) -> Self {
        Self::new(("post", MethodFilter::POST), path, summary, handler)
    }
    /// `PATCH`.
    pub fn patch<H: Handler<X, C>, X: 'static>(
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("patch", MethodFilter::PATCH), path, summary, handler)
    }
    /// `DELETE`; the answer is empty.
    pub fn delete<H: Handler<X, C>, X: 'static>(
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self { status: "204", ..Self::new(("delete", MethodFilter::DELETE), path, summary, handler) }
    }

    /// With such a query.
    pub fn asked<T: JsonSchema>(self) -> Self {
        Self { query: Some(make::<T>), ..self }
    }
    /// With such a body.
    pub fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(make::<T>), ..self }
    }
    /// It answers so.
    pub fn answers<T: JsonSchema>(self) -> Self {
        Self { answer: Some((make::<T>, "application/json")), ..self }
    }
    /// It answers so, in another form than JSON.
    pub fn answers_as<T: JsonSchema>(self, media: &'static str) -> Self {
        Self { answer: Some((make::<T>, media)), ..self }
    }
    /// With another status than 200.
    pub fn with_status(self, status: &'static str) -> Self {
        Self { status, ..self }
    }
}
