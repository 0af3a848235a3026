//! What scenarios play on: the server, its users, and rooms made for them. Nothing here is timed.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use crate::client::{Client, Preset, Room, User};
use crate::connection::Target;
use crate::message::Clock;
use crate::meter;
use crate::options::Options;
use crate::procfs::Memory;
use crate::register::{Registrar, log_in};
use crate::tasks::Tasks;

/// Clients that prepare users and rooms at once. More would only queue at the server.
const HANDS: usize = 8;

pub(crate) struct Stage {
    pub(crate) options: Options,
    pub(crate) target: Arc<Target>,
    pub(crate) clock: Clock,
    /// The server's memory before the first request, unless it has already worked.
    pub(crate) memory_at_start: Option<Memory>,
    /// The user of the scenarios about a hundred rooms, once there is one.
    pub(crate) roomy: Option<User>,
    credentials: Credentials,
    users: Vec<User>,
    spare: Vec<User>,
    runs: u16,
}

/// How users are registered, and what they are called.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    registrar: Registrar,
    /// Differs in every run of the generator, so that a server can be measured more than once.
    tag: Arc<str>,
    password: Arc<str>,
    next: usize,
}

impl Stage {
    pub(crate) async fn set(options: Options) -> Result<Self> {
        let registrar = match &options.shared_secret {
            Some(secret) => Registrar::SharedSecret(secret.clone()),
            None => Registrar::Interactive { token: options.registration_token.clone() },
        };
        let seed = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("no random number")?;
        let tag = seed.split('-').next().unwrap_or_default().into();
        Ok(Self {
            target: Arc::new(Target::resolve(&options.urls).await?),
            clock: Clock::start(),
            memory_at_start: meter::server_memory(&options.pids)?,
            roomy: None,
            credentials: Credentials { registrar, tag, password: seed.trim().into(), next: 0 },
            users: Vec::new(),
            spare: Vec::new(),
            runs: 0,
            options,
        })
    }

    /// The other homeserver (`--other-url`), with users of its own.
    pub(crate) async fn other(&self) -> Result<Self> {
        if self.options.other_urls.is_empty() {
            bail!("this takes two homeservers that federate: name the other one with --other-url");
        }
        let mut options = self.options.clone();
        options.urls.clone_from(&self.options.other_urls);
        let other = Self::set(options).await?;
        Ok(Self { clock: self.clock, ..other })
    }

    /// The number of a new run, by which its messages differ from those of others.
    pub(crate) fn next_run(&mut self) -> u16 {
        self.runs += 1;
        self.runs
    }

    pub(crate) fn client(&self, user: &User) -> Client {
        Client::new(&self.target, user)
    }

    /// For somebody who logs users in by himself.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// Sets a range of names aside for somebody who registers by himself.
    pub(crate) fn reserve_names(&mut self, count: usize) -> Credentials {
        let reserved = self.credentials.clone();
        self.credentials.next += count;
        reserved
    }

    /// Takes users over that a scenario has registered.
    pub(crate) fn keep_users(&mut self, users: Vec<User>) {
        self.spare.extend(users);
    }

    /// Users whom all scenarios share that ask for them, registered when first needed.
    pub(crate) async fn users(&mut self, count: usize) -> Result<Vec<User>> {
        if let Some(missing) = count.checked_sub(self.users.len()) {
            let new = self.new_users(missing).await?;
            self.users.extend(new);
        }
        Ok(self.users.iter().take(count).cloned().collect())
    }

    /// Users that no other scenario gets to see.
    pub(crate) async fn new_users(&mut self, count: usize) -> Result<Vec<User>> {
        if let Some(missing) = count.checked_sub(self.spare.len()).filter(|missing| *missing > 0) {
            eprintln!("  registering {missing} users");
            let names = self.reserve_names(missing);
            let target = Arc::clone(&self.target);
            let registered = Tasks::start((0..HANDS.min(missing)).map(|hand| {
                let (names, mut client) = (names.clone(), Client::anonymous(&target));
                async move {
                    let mut users = Vec::new();
                    for index in (hand..missing).step_by(HANDS) {
                        users.push(names.register(&mut client, index).await?);
                    }
                    Ok(users)
                }
            }));
            self.spare.extend(registered.finish().await?.into_iter().flatten());
        }
        Ok(self.spare.split_off(self.spare.len() - count))
    }

    /// A room that all of the users are members of; the first one made it.
    pub(crate) async fn room_of(&self, users: &[User]) -> Result<Room> {
        let (creator, others) = users.split_first().context("a room needs a creator")?;
        let room = self.client(creator).create_room(Preset::PublicChat, "Bench").await?;
        let joined = Tasks::start((0..HANDS.min(others.len())).map(|hand| {
            let room = room.clone();
            let joining: Vec<Client> = others.iter().skip(hand).step_by(HANDS).map(|user| self.client(user)).collect();
            async move {
                for mut client in joining {
                    client.join(&room).await?;
                }
                Ok(())
            }
        }));
        joined.finish().await?;
        Ok(room)
    }

    /// Rooms of so many members each, no user in two of them.
    pub(crate) async fn rooms_of(&mut self, rooms: usize, members: usize) -> Result<Vec<(Vec<User>, Room)>> {
        let users = self.users(rooms * members).await?;
        eprintln!("  making {rooms} room(s) of {members} member(s)");
        let mut made = Vec::with_capacity(rooms);
        for members in users.chunks(members) {
            made.push((members.to_vec(), self.room_of(members).await?));
        }
        Ok(made)
    }
}

impl Credentials {
    /// Registers the user of this index in the reserved range.
    pub(crate) async fn register(&self, client: &mut Client, index: usize) -> Result<User> {
        let username = format!("bench-{}-{}", self.tag, self.next + index);
        self.registrar.register(client, &username, &self.password).await
    }

    /// One more device of a user who was registered in this run.
    pub(crate) async fn log_in(&self, client: &mut Client, user: &User) -> Result<User> {
        log_in(client, &user.id, &self.password).await
    }
}
