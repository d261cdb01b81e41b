//! One app, many buckets: which namespace an app belongs to, which of its buckets its environment holds.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, runtime::watcher};
use tokio::sync::watch;

use crate::{
    crd::{AppBucket, BucketStatus, EnvPolicy},
    identity::bucket_id,
};

/// What others need to know of one bucket of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    owner: Option<String>,
    uid: String,
    created: Option<Time>,
    status: Option<BucketStatus>,
    deleting: bool,
    publishes: bool,
}

impl Member {
    /// What an object says of itself.
    #[must_use]
    pub fn of(object: &AppBucket) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            owner: object.owner().map(ToOwned::to_owned),
            uid: object.uid().unwrap_or_default(),
            created: object.creation_timestamp(),
            status: object.bucket_status(),
            deleting: object.is_deleting(),
            publishes: object.spec.env_policy == EnvPolicy::Publish,
        }
    }

    /// Oldest first; the UID decides between objects of the same second.
    fn age(&self) -> (Option<&Time>, &str) {
        (self.created.as_ref(), &self.uid)
    }
}

/// All buckets of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct App(Vec<Member>);

impl App {
    /// The app with those buckets.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = Member>) -> Self {
        Self(members.into_iter().collect())
    }

    /// The same, where this object is known to be provisioned (its status may not say so yet).
    #[must_use]
    pub fn with_provisioned(mut self, object: &AppBucket) -> Self {
        let mut member = Member::of(object);
        member.status.get_or_insert(BucketStatus::Ready);
        self.0.retain(|other| other.uid != member.uid);
        self.0.push(member);
        self
    }

    /// Whom the app belongs to: the first that has a bucket of it. What is provisioned comes first, so that a claim that was
    /// granted stays granted.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        let first = |members: &mut dyn Iterator<Item = &Member>| {
            members.min_by_key(|member| (member.status.is_none(), member.age())).cloned()
        };
        let namespace = first(&mut self.0.iter())?.namespace;
        let owner = first(&mut self.0.iter().filter(|member| member.owner.is_some() && member.namespace == namespace));
        Some(Holder { namespace, owner: owner.and_then(|member| member.owner) })
    }

    /// The ids of the app's buckets in that namespace, oldest first.
    #[must_use]
    pub fn bucket_refs(&self, namespace: &str) -> Vec<String> {
        let mut members: Vec<_> = self.live(namespace).collect();
        members.sort_by_key(|member| member.age());
        members.into_iter().map(|member| bucket_id(&member.uid)).collect()
    }

    /// The bucket that the app's environment holds: the newest that is provisioned and wants to be published.
    #[must_use]
    pub fn winner(&self, namespace: &str) -> Option<&Member> {
        self.live(namespace).filter(|member| member.publishes).max_by_key(|member| member.age())
    }

    fn live(&self, namespace: &str) -> impl Iterator<Item = &Member> {
        self.0.iter().filter(move |member| member.status.is_some() && !member.deleting && member.namespace == namespace)
    }
}

impl Member {
    /// Whether it speaks of that object.
    #[must_use]
    pub fn is(&self, object: &AppBucket) -> bool {
        object.metadata.uid.as_deref() == Some(&self.uid)
    }
}

/// Whom an app belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The namespace.
    pub namespace: String,
    /// Within it, the principal of the front doors, if it was claimed there.
    pub owner: Option<String>,
}

impl Holder {
    /// Whether the object may have a bucket of the app. What was declared to the API server goes by its rules alone.
    #[must_use]
    pub fn admits(&self, object: &AppBucket) -> bool {
        object.namespace().unwrap_or_default() == self.namespace
            && (self.owner.is_none() || object.owner().is_none() || self.owner.as_deref() == object.owner())
    }
}

/// All apps, as the watches of `AppBuckets` tell them.
pub struct Apps {
    index: Mutex<Index>,
    /// How many watches have not been read through yet.
    pending: watch::Sender<usize>,
}

#[derive(Default)]
struct Index {
    apps: HashMap<String, HashMap<String, Member>>,
    /// Whom an app was granted to, until the last bucket there is gone: two new claims in the same second must not both be the
    /// first.
    granted: HashMap<String, Holder>,
    /// By watch, the UIDs of a list that is being read; what it does not hold is gone.
    listed: HashMap<Scope, HashSet<String>>,
    /// The watches that were read through once.
    synced: HashSet<Scope>,
}

/// What a watch covers: one namespace, or all.
pub type Scope = Option<String>;

impl Apps {
    /// To be fed by that many watches.
    #[must_use]
    pub fn new(watches: usize) -> Self {
        Self { index: Mutex::default(), pending: watch::Sender::new(watches) }
    }

    /// Waits until every watch was read through once: who was first can't be told before.
    pub async fn synced(&self) {
        // The sender lives as long as self.
        let _ = self.pending.subscribe().wait_for(|pending| *pending == 0).await;
    }

    /// Whether every watch was read through once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.pending.borrow() == 0
    }

    /// How many buckets there are of each status; `pending` have none yet.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 3] {
        let index = self.index();
        let count = |status| index.apps.values().flat_map(HashMap::values).filter(|member| member.status == status).count();
        [("stub", count(Some(BucketStatus::Stub))), ("ready", count(Some(BucketStatus::Ready))), ("pending", count(None))]
    }

    /// Takes in what a watch says. Gives back the other buckets of the app that it may concern, as (namespace, name).
    pub fn observe(&self, scope: &Scope, event: &watcher::Event<AppBucket>) -> Vec<(String, String)> {
        let mut index = self.index();
        match event {
            watcher::Event::Init => {
                index.listed.insert(scope.clone(), HashSet::new());
                vec![]
            }
            watcher::Event::InitApply(object) => {
                index.listed.entry(scope.clone()).or_default().insert(object.uid().unwrap_or_default());
                index.apply(object)
            }
            watcher::Event::InitDone => {
                let others = index.forget_unlisted(scope);
                if index.synced.insert(scope.clone()) {
                    self.pending.send_modify(|pending| *pending = pending.saturating_sub(1));
                }
                others
            }
            watcher::Event::Apply(object) => index.apply(object),
            watcher::Event::Delete(object) => index.remove(&object.spec.app_id, &object.uid().unwrap_or_default()),
        }
    }

    /// All buckets of that app.
    #[must_use]
    pub fn get(&self, app_id: &str) -> App {
        self.index().app(app_id)
    }

    /// Grants the app to the first who claims it, until the last bucket there is gone, and says to whom.
    #[must_use]
    pub fn claim(&self, object: &AppBucket) -> Holder {
        let app_id = &object.spec.app_id;
        let mut index = self.index();
        // An object that the watch has not told of yet is not granted for good.
        let Some(first) = index.app(app_id).holder() else {
            return Holder { namespace: object.namespace().unwrap_or_default(), owner: object.owner().map(ToOwned::to_owned) };
        };
        let granted = index.granted.entry(app_id.clone()).or_insert_with(|| first.clone());
        // It may have been granted before anybody claimed it at the front doors.
        if granted.owner.is_none() && granted.namespace == first.namespace {
            granted.owner = first.owner;
        }
        granted.clone()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn app(&self, app_id: &str) -> App {
        App::new(self.apps.get(app_id).into_iter().flat_map(HashMap::values).cloned())
    }

    fn apply(&mut self, object: &AppBucket) -> Vec<(String, String)> {
        let member = Member::of(object);
        let members = self.apps.entry(object.spec.app_id.clone()).or_default();
        if members.get(&member.uid) == Some(&member) {
            return vec![];
        }
        let others = names(members.values().filter(|other| other.uid != member.uid));
        members.insert(member.uid.clone(), member);
        others
    }

    fn remove(&mut self, app_id: &str, uid: &str) -> Vec<(String, String)> {
        let Some(members) = self.apps.get_mut(app_id) else { return vec![] };
        members.remove(uid);
        let is_there = |holder: &Holder| {
            members
                .values()
                .any(|member| member.namespace == holder.namespace && (holder.owner.is_none() || member.owner == holder.owner))
        };
        if !self.granted.get(app_id).is_some_and(is_there) {
            self.granted.remove(app_id);
        }
        let others = names(members.values());
        if others.is_empty() {
            self.apps.remove(app_id);
        }
        others
    }

    fn forget_unlisted(&mut self, scope: &Scope) -> Vec<(String, String)> {
        let listed = self.listed.remove(scope).unwrap_or_default();
        let in_scope = |member: &Member| scope.as_ref().is_none_or(|namespace| *namespace == member.namespace);
        let gone: Vec<(String, String)> = self
            .apps
            .iter()
            .flat_map(|(app_id, members)| members.values().map(move |member| (app_id, member)))
            .filter(|(_, member)| in_scope(member) && !listed.contains(&member.uid))
            .map(|(app_id, member)| (app_id.clone(), member.uid.clone()))
            .collect();
        gone.iter().flat_map(|(app_id, uid)| self.remove(app_id, uid)).collect()
    }
}

fn names<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<(String, String)> {
    members.map(|member| (member.namespace.clone(), member.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::fixtures::{app_bucket, provisioned};

    fn object(namespace: &str, name: &str, second: i64) -> AppBucket {
        let mut object = app_bucket(name);
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.uid = Some(format!("{namespace}-{name}"));
        object.metadata.creation_timestamp = Some(Time(jiff::Timestamp::from_second(second).unwrap()));
        object
    }

    fn app(objects: &[AppBucket]) -> App {
        App::new(objects.iter().map(Member::of))
    }

    #[test]
    fn the_oldest_claim_wins_and_a_granted_one_stays() {
        let (a, b) = (object("a", "x", 2), object("b", "y", 1));
        assert_eq!(app(&[a.clone(), b.clone()]).holder().unwrap().namespace, "b");
        assert_eq!(app(&[provisioned(a), b]).holder().unwrap().namespace, "a", "a bucket that exists is not taken away");
    }

    #[test]
    fn two_claims_of_one_second_are_not_both_granted() {
        let apps = Apps::new(1);
        let (late, early) = (object("a", "x", 1), object("b", "y", 1));
        apps.observe(&None, &Event::Apply(early.clone()));
        assert_eq!(apps.claim(&early).namespace, "b");
        apps.observe(&None, &Event::Apply(late.clone()));
        assert_eq!(apps.claim(&late).namespace, "b", "its UID is lower, but the claim is granted");
        apps.observe(&None, &Event::Delete(early));
        assert_eq!(apps.claim(&late).namespace, "a");
    }

    #[test]
    fn an_app_that_was_claimed_at_the_front_doors_is_nobody_elses() {
        let owned = |name, second, owner: &str| {
            let mut object = object("a", name, second);
            object.metadata.annotations = Some([(crate::crd::OWNER_ANNOTATION.to_owned(), owner.to_owned())].into());
            object
        };
        let (declared, first, second) = (object("a", "declared", 1), owned("first", 2, "ann"), owned("second", 3, "bob"));
        let apps = Apps::new(1);
        for object in [&declared, &first, &second] {
            apps.observe(&None, &Event::Apply(object.clone()));
        }
        let admitted = |object: &AppBucket| apps.claim(object).admits(object);
        assert!(admitted(&declared) && admitted(&first) && !admitted(&second));
        apps.observe(&None, &Event::Delete(first));
        assert!(admitted(&second));
    }

    #[test]
    fn the_newest_provisioned_bucket_is_published() {
        let (old, new) = (provisioned(object("a", "old", 1)), object("a", "new", 2));
        let winner = |objects: &[AppBucket]| app(objects).winner("a").map(|member| member.name.clone());
        assert_eq!(winner(&[old.clone(), new.clone()]).as_deref(), Some("old"), "the new one has no credentials yet");
        let new = provisioned(new);
        assert_eq!(winner(&[old.clone(), new.clone()]).as_deref(), Some("new"));
        let mut private = new.clone();
        private.spec.env_policy = EnvPolicy::None;
        assert_eq!(winner(&[old.clone(), private]).as_deref(), Some("old"));
        let mut leaving = new.clone();
        leaving.metadata.deletion_timestamp = new.metadata.creation_timestamp.clone();
        assert_eq!(winner(&[old, leaving]).as_deref(), Some("old"));
        assert_eq!(winner(&[provisioned(object("b", "other", 3))]), None, "another namespace");
    }

    #[test]
    fn refs_are_sorted_by_age() {
        let objects = [3, 1, 2].map(|second| provisioned(object("a", &format!("n{second}"), second)));
        let expected = ["a-n1", "a-n2", "a-n3"].map(bucket_id);
        assert_eq!(app(&objects).bucket_refs("a"), expected);
    }

    #[test]
    fn a_change_concerns_the_other_buckets_of_the_app_once() {
        let apps = Apps::new(1);
        let (one, two) = (object("a", "one", 1), object("a", "two", 2));
        assert!(apps.observe(&None, &Event::Apply(one.clone())).is_empty());
        assert_eq!(apps.observe(&None, &Event::Apply(two.clone())), [("a".to_owned(), "one".to_owned())]);
        assert!(apps.observe(&None, &Event::Apply(two.clone())).is_empty(), "nothing that matters changed");
        assert_eq!(apps.observe(&None, &Event::Apply(provisioned(two.clone()))), [("a".to_owned(), "one".to_owned())]);
        assert_eq!(apps.observe(&None, &Event::Delete(two)), [("a".to_owned(), "one".to_owned())]);
    }

    #[test]
    fn what_a_new_list_does_not_hold_is_gone() {
        let apps = Apps::new(1);
        let (one, two) = (object("a", "one", 1), object("a", "two", 2));
        for object in [&one, &two] {
            apps.observe(&None, &Event::Apply(object.clone()));
        }
        apps.observe(&None, &Event::Init);
        apps.observe(&None, &Event::InitApply(one.clone()));
        assert_eq!(apps.observe(&None, &Event::InitDone), [("a".to_owned(), "one".to_owned())]);
        assert_eq!(apps.get(&one.spec.app_id), app(&[one]));
    }
}
