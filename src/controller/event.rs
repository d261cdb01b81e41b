//! Events: one for each change that a user cares about. Pure; the notes hold no secret.

use kube::runtime::events::{Event, EventType};

use super::plan::Step;
use crate::{
    crd::{AppBucket, AppBucketStatus, BucketStatus, condition, reason},
    provider::Kind,
};

/// What changed between two statuses, and what was repaired on the way.
#[must_use]
pub fn events(object: &AppBucket, after: &AppBucketStatus, done: &[Step], provider: Kind) -> Vec<Event> {
    let none = AppBucketStatus::default();
    let before = object.status.as_ref().unwrap_or(&none);
    let bucket = after.bucket_name.as_deref().unwrap_or_default();
    let secret = object.secret_name();
    let mut events = vec![];
    match (before.status, after.status) {
        (None, Some(BucketStatus::Stub)) => {
            events.push(normal(
                "Provisioned",
                "Provision",
                format!("Bucket {bucket} is fabricated (stub mode); credentials in Secret {secret}"),
            ));
        }
        (None, Some(BucketStatus::Ready)) => {
            events.push(normal(
                "Provisioned",
                "Provision",
                format!("Bucket {bucket} with policy and user; credentials in Secret {secret}"),
            ));
        }
        (Some(BucketStatus::Stub), Some(BucketStatus::Ready)) => {
            events.push(normal("Promoted", "Provision", format!("Bucket {bucket} is now real, with the same name and keys")));
        }
        (Some(_), _) => events.extend(done.iter().filter_map(|step| repair(*step, provider, bucket, &secret))),
        (None, None) => {}
    }
    let action = if object.is_deleting() { "Delete" } else { "Provision" };
    for (type_, action) in [
        (condition::STALLED, action),
        (condition::PAUSED, action),
        (condition::RECONCILING, action),
        (condition::ENV_PUBLISHED, "Publish"),
    ] {
        events.extend(transition(before, after, type_, action));
    }
    events
}

/// On a bucket that was there before, each of these steps means that somebody took something away or changed it. The stub
/// remembers nothing from one start to the next, so with it they mean nothing.
fn repair(step: Step, provider: Kind, bucket: &str, secret: &str) -> Option<Event> {
    Some(match (step, provider) {
        (Step::CreateSecret, _) => {
            warning("SecretRecreated", "Repair", format!("Secret {secret} was gone and was made again, with a new secret key"))
        }
        (Step::RepairSecret, _) => normal("SecretRepaired", "Repair", format!("Secret {secret} was corrected")),
        (Step::CreateBucket, Kind::Minio) => warning(
            "BucketRecreated",
            "Repair",
            format!("Bucket {bucket} was gone and was made again, empty, with the same keys"),
        ),
        (Step::MarkBucket, Kind::Minio) => {
            normal("OwnershipTagRepaired", "Repair", format!("The ownership tag of bucket {bucket} was put back"))
        }
        (Step::PutPolicy, Kind::Minio) => {
            normal("PolicyRepaired", "Repair", format!("The policy of bucket {bucket} was put back"))
        }
        (Step::PutUser, Kind::Minio) => normal("UserRepaired", "Repair", format!("The user of bucket {bucket} was put back")),
        _ => return None,
    })
}

/// A condition that came, or that changed its reason, or for the environment its state.
fn transition(before: &AppBucketStatus, after: &AppBucketStatus, type_: &str, action: &str) -> Option<Event> {
    let now = after.condition(type_)?;
    if before.condition(type_).is_some_and(|then| then.status == now.status && then.reason == now.reason) {
        return None;
    }
    match now.reason.as_str() {
        // What every object goes through, or what its own spec says.
        reason::NOT_PROVISIONED | reason::PROVISIONING | reason::PUBLISHING | reason::DISABLED => None,
        reason::PUBLISHED => Some(normal("EnvPublished", action, now.message.clone())),
        reason::PAUSED => Some(normal("Paused", action, now.message.clone())),
        reason::SUPERSEDED => Some(normal("EnvSuperseded", action, now.message.clone())),
        _ => Some(warning(&now.reason, action, now.message.clone())),
    }
}

/// What is said of an object that goes.
#[must_use]
pub fn farewell(object: &AppBucket, done: &[Step], bucket: &str) -> Event {
    let note = if done.contains(&Step::DeleteBucket) {
        return normal("BucketDeleted", "Delete", format!("Bucket {bucket}, its user and its policy are deleted"));
    } else if object.bucket_status().is_none() {
        "There was no bucket".to_owned()
    } else {
        format!("Bucket {bucket}, its data, user and policy stay (deletionPolicy Retain, or already gone)")
    };
    normal("Released", "Delete", note)
}

fn normal(reason: &str, action: &str, note: String) -> Event {
    event(EventType::Normal, reason, action, note)
}

/// An Event that somebody should look at.
#[must_use]
pub fn warning(reason: &str, action: &str, note: String) -> Event {
    event(EventType::Warning, reason, action, note)
}

fn event(type_: EventType, reason: &str, action: &str, mut note: String) -> Event {
    // The API server takes at most 1024 bytes (k8s.io/api/events/v1, Event.note).
    let mut end = note.len().min(1000);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.truncate(end);
    Event { type_, reason: reason.to_owned(), action: action.to_owned(), note: Some(note), secondary: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{app_bucket, provisioned};

    fn reasons(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.reason.as_str()).collect()
    }

    #[test]
    fn what_did_not_change_is_no_event() {
        let object = provisioned(app_bucket("demo"));
        let status = object.status.clone().unwrap();
        assert!(events(&object, &status, &[], Kind::Minio).is_empty());
    }

    #[test]
    fn what_becomes_of_a_bucket_is_told_once() {
        let object = app_bucket("demo");
        let after = provisioned(object.clone()).status.unwrap();
        let done = [Step::PutPolicy, Step::CreateBucket, Step::CreateSecret];
        assert_eq!(reasons(&events(&object, &after, &done, Kind::Minio)), ["Provisioned"]);
        let mut stub = provisioned(object);
        stub.status.as_mut().unwrap().status = Some(BucketStatus::Stub);
        assert_eq!(reasons(&events(&stub, &after, &done, Kind::Minio)), ["Promoted"]);
    }

    #[test]
    fn each_repair_is_told_except_of_the_stub_which_remembers_nothing() {
        let object = provisioned(app_bucket("demo"));
        let status = object.status.clone().unwrap();
        let done = [Step::PutPolicy, Step::CreateBucket, Step::MarkBucket, Step::PutUser, Step::Verify, Step::RepairSecret];
        let told = events(&object, &status, &done, Kind::Minio);
        assert_eq!(
            reasons(&told),
            ["PolicyRepaired", "BucketRecreated", "OwnershipTagRepaired", "UserRepaired", "SecretRepaired"]
        );
        assert_eq!(reasons(&events(&object, &status, &done, Kind::Stub)), ["SecretRepaired"]);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = warning("X", "Y", "ü".repeat(1000)).note.unwrap();
        assert!(note.len() <= 1000 && note.chars().all(|c| c == 'ü'));
    }
}
