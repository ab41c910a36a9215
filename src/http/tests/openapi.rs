//! The description lists the routes exactly.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Edge;
use crate::http::request::auth::Access;
use crate::http::routes::ROUTES;

fn document() -> Value {
    serde_saphyr::from_str(crate::http::api::operations::OPENAPI_YAML).unwrap()
}

#[test]
fn the_description_lists_exactly_the_routes() {
    let described: BTreeSet<(String, String)> = document()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|route| (route.pattern.to_owned(), route.method.to_owned()))
        .collect();
    assert_eq!(described, served);
}

#[test]
fn the_description_states_which_routes_need_a_key() {
    let document = document();
    for route in ROUTES {
        let method = route.method;
        let described = &document["paths"][route.pattern][method.to_lowercase()];
        let needs_key = matches!(route.access, Access::Key(..));
        let at = format!("{method} {}", route.pattern);
        assert_eq!(described.get("security").is_none(), needs_key, "{at}");
        for status in ["401", "403"] {
            let answer = described["responses"].get(status);
            assert_eq!(answer.is_some(), needs_key, "{at} {status}");
        }
    }
}

/// Follows a reference to its schema. A description next to the reference counts too.
fn resolved<'d>(document: &'d Value, mut value: &'d Value) -> (&'d Value, bool) {
    let mut is_described = value.get("description").is_some();
    while let Some(target) = value.get("$ref").and_then(Value::as_str) {
        value = document.pointer(target.strip_prefix('#').unwrap()).unwrap();
        is_described |= value.get("description").is_some();
    }
    (value, is_described)
}

#[test]
fn every_field_says_what_it_means() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut waiting: Vec<(String, &Value)> = Vec::new();
    waiting.extend(schemas.iter().map(|(name, schema)| (name.clone(), schema)));
    let mut fields = 0;
    while let Some((name, schema)) = waiting.pop() {
        let parts = schema.get("allOf").and_then(Value::as_array);
        waiting.extend(parts.into_iter().flatten().map(|part| (name.clone(), part)));
        let properties = schema.get("properties").and_then(Value::as_object);
        for (field, value) in properties.into_iter().flatten() {
            let name = format!("{name}.{field}");
            let (inner, is_described) = resolved(&document, value);
            assert!(is_described, "{name}");
            fields += 1;
            waiting.extend(inner.get("items").map(|items| (name.clone(), items)));
            waiting.push((name, inner));
        }
    }
    assert!(fields > 150, "{fields}");
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut waiting = vec![&document];
    let mut references = 0;
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                    references += 1;
                }
                waiting.extend(fields.values());
            }
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    assert!(references > 100);
}

#[tokio::test]
async fn the_description_is_served_as_json_and_yaml() {
    let edge = Edge::start();
    let json = edge.get("/openapi.json").await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.json(), document());
    let yaml = edge.get("/openapi.yaml").await;
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    assert!(yaml.body.starts_with("openapi: 3.1.0"));
}
