//! The `CustomResourceDefinition`, as `appbucket-operator crd` prints it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::json;

use super::AppBucket;

/// The CRD of `AppBucket`.
///
/// On top of what is derived, `status` has a default with `observedGeneration: -1`: kstatus takes an object without a
/// status for done, and this tells it that the operator has not looked yet (the convention of Flux's CRDs).
#[must_use]
pub fn custom_resource_definition() -> CustomResourceDefinition {
    let mut crd = AppBucket::crd();
    for version in &mut crd.spec.versions {
        let status = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|schema| schema.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        }
    }
    crd
}
