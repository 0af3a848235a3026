//! What is remembered of keys is what a node would read that remembers nothing.

use std::mem::replace;

use super::*;
use crate::ground::weighed::Weighed as _;

const PEOPLE: usize = 3;
/// The first is there for as long as its user.
const DEVICES: [&str; 3] = ["D0", "D1", "D2"];

/// One change: which, by whom, of which device or which other user, and on which node.
type Step = (usize, usize, usize, usize);

/// Somebody with devices and keys.
struct Somebody {
    name: String,
    user_id: OwnedUserId,
    sessions: BTreeMap<&'static str, User>,
    pairs: BTreeMap<&'static str, Pair>,
    vouching: Vouching,
}

impl Somebody {
    async fn new(app: &App, name: String) -> Self {
        let user_id = app.accounts.create_user(&name, "correct horse", false).await.unwrap();
        let (sessions, pairs) = (BTreeMap::new(), BTreeMap::new());
        let mut somebody = Self { name, user_id, sessions, pairs, vouching: Vouching::new() };
        somebody.session(app, DEVICES[0]).await;
        somebody
    }

    /// The session on a device, which begins if there is none.
    async fn session(&mut self, app: &App, device: &'static str) -> User {
        if let Some(user) = self.sessions.get(device) {
            return user.clone();
        }
        let device_id = Some(device.into());
        let new = NewSession { device_id, display_name: None, refreshable: false, address: HERE };
        let session = app.accounts.login_with_password(self.name.as_str(), "correct horse", new).await.unwrap();
        let user = app.accounts.caller(&session.access_token, HERE).await.unwrap().into_user().unwrap();
        self.sessions.insert(device, user.clone());
        user
    }

    fn master(&self) -> Value {
        self.vouching.master.cross_signing_key(self.user_id.as_str(), "master", None)
    }

    async fn end(&mut self, app: &App, device: &'static str) {
        app.accounts.delete_devices(&self.user_id, DeviceSelection::These(&[device])).await.unwrap();
        self.sessions.remove(device);
        self.pairs.remove(device);
    }

    async fn upload(&mut self, app: &App, device: &'static str, is_new: bool) {
        if is_new || !self.pairs.contains_key(device) {
            self.pairs.insert(device, Pair::new(device));
        }
        let upload = identity(&self.pairs[device], &self.user_id);
        app.keys.upload(&self.session(app, device).await, &upload).await.unwrap();
    }

    async fn vouch(&mut self, app: &App, is_new: bool) {
        let new = Vouching::new();
        self.vouching = if is_new {
            new
        } else {
            Vouching { master: replace(&mut self.vouching.master, Pair::cross_signing()), ..new }
        };
        let keys = self.vouching.keys(&self.user_id);
        vouch(app, &self.session(app, DEVICES[0]).await, &keys, Confirmation::Given).await.unwrap();
    }

    /// Signs a device, and has it sign the master key. What is refused because there are no such keys changes nothing.
    async fn sign_own(&mut self, app: &App, device: &'static str) {
        let Some(pair) = self.pairs.get(device) else { return };
        let name = self.user_id.as_str();
        let signed = json!({ name: {
            device: self.vouching.self_signing.sign(name, &pair.device_keys(name)),
            self.vouching.master.public_key(): pair.sign(name, &self.master()),
        } });
        sign(app, &self.session(app, DEVICES[0]).await, signed).await;
    }

    async fn sign_other(&mut self, app: &App, (user_id, master): (OwnedUserId, Value), key: String) {
        let signed = self.vouching.user_signing.sign(self.user_id.as_str(), &master);
        sign(app, &self.session(app, DEVICES[0]).await, json!({ user_id.as_str(): { key: signed } })).await;
    }
}

async fn change(app: &App, people: &mut [Somebody], former: &mut Vec<OwnedUserId>, (what, who, other, number): Step) {
    let device = DEVICES[other];
    let another = &people[(who + 1 + other % (PEOPLE - 1)) % PEOPLE];
    let of_another = (another.user_id.clone(), another.master());
    let key = another.vouching.master.public_key();
    let one = &mut people[who];
    match what {
        0..=2 => one.upload(app, device, what == 0).await,
        3 if other > 0 => one.end(app, device).await,
        3 => {
            let others = DeviceSelection::AllBut(device_id(DEVICES[0]));
            app.accounts.delete_devices(&one.user_id, others).await.unwrap();
            one.sessions.retain(|device, _| *device == DEVICES[0]);
            one.pairs.retain(|device, _| *device == DEVICES[0]);
        }
        4 => {
            one.session(app, device).await;
            app.devices.rename(&one.user_id, device_id(device), &format!("Device {number}")).await.unwrap();
        }
        5 | 6 => one.vouch(app, what == 5).await,
        7 | 8 => one.sign_own(app, device).await,
        9..=11 => one.sign_other(app, of_another, key).await,
        _ => {
            app.accounts.deactivate(&one.user_id, false).await.unwrap();
            let next = Somebody::new(app, format!("person{who}-{number}")).await;
            former.push(replace(one, next).user_id);
        }
    }
}

/// Each node remembers nothing else than what it would read.
async fn check(apps: &[&App], people: &[Somebody], former: &[OwnedUserId], step: &Step) {
    let mut asked: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>> =
        former.iter().map(|user_id| (user_id.clone(), Vec::new())).collect();
    asked.extend(people.iter().map(|one| (one.user_id.clone(), Vec::new())));
    let mut one_device = asked.clone();
    for devices in one_device.values_mut() {
        devices.push(DEVICES[1].into());
    }
    let reached = apps.iter().map(|app| app.log.tail().reached()).max().unwrap();
    for app in apps {
        app.log.tail().reach(reached).await;
        let mut answers: Vec<Vec<Value>> = Vec::new();
        for _ in ["from memory", "from the database", "from memory again"] {
            let mut answer = Vec::new();
            for reader in people {
                answer.push(query_all(app, &reader.user_id, &asked).await.0);
                answer.push(query_all(app, &reader.user_id, &one_device).await.0);
            }
            answers.push(answer);
            if answers.len() == 1 {
                app.keys.0.cache.forget_all();
            }
        }
        assert_eq!(answers[0], answers[1], "after {step:?}");
        assert_eq!(answers[1], answers[2], "after {step:?}");
        assert!(app.keys.0.cache.weight().bytes > 0, "something is remembered");
    }
}

async fn walk(apps: &[&App], steps: Vec<Step>) {
    let (mut people, mut former) = (Vec::new(), Vec::new());
    for n in 0..PEOPLE {
        people.push(Somebody::new(apps[0], format!("person{n}")).await);
    }
    for (number, (what, who, other, node)) in steps.into_iter().enumerate() {
        let step = (what, who, other, number);
        change(apps[node % apps.len()], &mut people, &mut former, step).await;
        check(apps, &people, &former, &step).await;
    }
}

fn steps() -> Vec<Step> {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let steps = prop::collection::vec((0_usize..13, 0..PEOPLE, 0..DEVICES.len(), 0_usize..2), 60);
    let steps = steps.new_tree(&mut TestRunner::new(config)).unwrap().current();
    // Everybody has something to begin with.
    let first = (0..PEOPLE).flat_map(|who| [(0, who, 1, 0), (5, who, 0, 1), (7, who, 1, 0), (9, who, 0, 1)]);
    first.chain(steps).collect()
}

#[tokio::test]
async fn what_is_remembered_is_what_would_be_read() {
    for world in World::on_each_engine().await {
        walk(&[&world.app], steps()).await;
        world.close().await;
    }
}

#[tokio::test]
async fn it_is_on_two_nodes() {
    let Some((world, other)) = World::two_nodes().await else { return };
    walk(&[&world.app, &other], steps()).await;
    world.close_both(other).await;
}

#[tokio::test]
async fn what_is_read_beside_a_change_is_not_remembered_as_it_was() {
    for world in World::on_each_engine().await {
        let (app, alice) = (&world.app, person(&world, "alice", "PHONE").await);
        app.keys.upload(&alice, &identity(&Pair::new("PHONE"), &alice.user_id)).await.unwrap();
        for n in 0..40 {
            let name = n.to_string();
            app.keys.0.cache.forget_all();
            let rename = app.devices.rename(&alice.user_id, device_id("PHONE"), &name);
            let (_, renamed) = tokio::join!(query(app, &alice.user_id, &alice.user_id), rename);
            renamed.unwrap();
            let shown = query(app, &alice.user_id, &alice.user_id).await;
            let device = &shown["device_keys"][alice.user_id.as_str()]["PHONE"];
            assert_eq!(device["unsigned"]["device_display_name"], name);
        }
        world.close().await;
    }
}

/// No entry says that somebody has an account now.
#[tokio::test]
async fn nobody_is_remembered_as_unknown() {
    for world in World::on_each_engine().await {
        let (app, alice) = (&world.app, person(&world, "alice", "PHONE").await);
        let bob = OwnedUserId::try_from("@bob:localhost").unwrap();
        assert_eq!(query(app, &alice.user_id, &bob).await["device_keys"], json!({}));
        person(&world, "bob", "PHONE").await;
        assert_eq!(query(app, &alice.user_id, &bob).await["device_keys"], json!({ bob.as_str(): {} }));
        world.close().await;
    }
}
