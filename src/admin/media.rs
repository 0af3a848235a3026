//! `hearth admin …-media`: what the commands about media print, and what they ask before they delete something.

use std::io::{self, Write as _};

use super::{
    AdminContext, Failure, confirm,
    lists::{render, write_json},
    media_stores::{MediaStores, MoveSummary, RotateSummary, SweepSummary},
    media_summary::{MediaCount, MediaFilter, MediaSummary, QuarantineChange},
    progress::ProgressLine,
    say,
    units::{files, size},
};
use crate::config::{
    MediaRedirect,
    cli::{DeleteMedia, ListFormat, ListMedia, MediaCommand, MoveMedia, ShowMediaUsage, SweepMedia},
};

impl AdminContext<'_> {
    pub(super) async fn carry_out_on_media(&self, command: MediaCommand) -> Result<(), Failure> {
        use MediaCommand as Asked;
        match command {
            Asked::ListMedia(list) => self.list_media(&list).await,
            Asked::ShowMedia(shown) => {
                let media = self.media.show(&shown.uri).await.map_err(self.explain())?;
                say(&format!("{}\n", write_json(&media)?))
            }
            Asked::MediaUsage(show) => self.show_media_usage(&show).await,
            Asked::QuarantineMedia(what) => self.put_under_quarantine(&what.target).await,
            Asked::UnquarantineMedia(what) => self.lift_quarantine(&what.target).await,
            Asked::ListQuarantined(listing) => {
                let list = self.media.list_quarantined().await.map_err(self.explain())?;
                Self::list(&list, listing, "Nothing is under quarantine.")
            }
            Asked::DeleteMedia(delete) => self.delete_media(&delete).await,
            Asked::SweepMedia(sweep) => self.sweep_media(&sweep).await,
            Asked::MoveMedia(moved) => self.move_media(&moved).await,
            Asked::RotateMediaKey => self.rotate_media_key().await,
        }
    }

    async fn list_media(&self, list: &ListMedia) -> Result<(), Failure> {
        let user_id = match &list.user {
            Some(name) => Some(self.administration.show_account(name).await.map_err(self.explain())?.user_id),
            None => None,
        };
        let filter = MediaFilter {
            user_id,
            server_name: list.server.clone(),
            digest: list.digest.clone(),
            quarantined: list.quarantined,
        };
        // Page by page, so that the list of a large server begins at once and needs no memory.
        let mut last: Option<MediaSummary> = None;
        loop {
            let page = self.media.list(&filter, last.as_ref()).await.map_err(self.explain())?;
            say(&render(&page, list.listing.json, last.is_none())?)?;
            let Some(end) = page.into_iter().next_back() else { break };
            last = Some(end);
        }
        if last.is_none() {
            writeln!(io::stderr(), "There are none.")?;
        }
        Ok(())
    }

    async fn show_media_usage(&self, show: &ShowMediaUsage) -> Result<(), Failure> {
        if let Some(name) = &show.name {
            let user_id = self.administration.show_account(name).await.map_err(self.explain())?.user_id;
            let usage = self.media.usage_of(user_id).await.map_err(self.explain())?;
            return Self::list(&[usage], ListFormat { json: show.json }, "");
        }
        let usage = self.media.usage(show.users).await.map_err(self.explain())?;
        if show.json {
            return say(&format!("{}\n", write_json(&usage)?));
        }
        let thumbnails = u64::try_from(usage.thumbnail_bytes).unwrap_or(0);
        say(&format!(
            "{}\n{}\n{}\nThumbnails beside them: {}, in {} files.\n",
            render(&usage.stores, false, true)?,
            render(&usage.origins, false, true)?,
            render(&usage.users, false, true)?,
            size(thumbnails),
            usage.thumbnails
        ))
    }

    async fn put_under_quarantine(&self, target: &str) -> Result<(), Failure> {
        let change = self.media.put_under_quarantine(target).await.map_err(self.explain())?;
        let elsewhere = match self.config.media.redirect {
            MediaRedirect::Off => "",
            MediaRedirect::Signed => " Who was sent to the store has a URL that is good a while longer.",
            MediaRedirect::Cdn => " The CDN goes on with what it has: delete it there, too.",
        };
        let done = if change.changed { "Nobody gets it any more." } else { "It was under quarantine before." };
        say(&format!("{done} {}{elsewhere}\n", concerned(&change)))
    }

    async fn lift_quarantine(&self, target: &str) -> Result<(), Failure> {
        let change = self.media.lift_quarantine(target).await.map_err(self.explain())?;
        let done = if change.changed {
            "The quarantine is lifted."
        } else {
            "It was not under quarantine by this: `hearth admin list-quarantined` shows what is."
        };
        say(&format!("{done} {}\n", concerned(&change)))
    }

    async fn delete_media(&self, delete: &DeleteMedia) -> Result<(), Failure> {
        let target = &delete.what.target;
        let found = self.media.look_at_deletion(target).await.map_err(self.explain())?;
        if found.files == 0 {
            return Err(Failure::new(format!("there are no media of {target}")));
        }
        if !delete.yes {
            let (count, bytes) = (files(found.files), size(found.bytes));
            confirm(&format!("This deletes {count} for good, {bytes}, of {target}."), "yes").await?;
        }
        let mut line = ProgressLine::begin();
        let mut show = |now: MediaCount| line.show(|| format!("Deleted: {} of {}", now.files, found.files));
        let deleted = self.media.delete(target, &mut show).await;
        line.end()?;
        let MediaCount { files: count, bytes } = deleted.map_err(self.explain())?;
        say(&format!(
            "Deleted {}, {}. Bytes that nothing else has go when a running server next tidies up.\n",
            files(count),
            size(bytes)
        ))
    }

    async fn stores(&self) -> Result<MediaStores, Failure> {
        self.media.open_stores(self.config, &self.random).await.map_err(self.explain())
    }

    async fn sweep_media(&self, sweep: &SweepMedia) -> Result<(), Failure> {
        let stores = self.stores().await?;
        let names = match &sweep.store {
            Some(name) => vec![name.clone()],
            None => stores.names(),
        };
        let mut lost = 0;
        let delete = !sweep.dry_run;
        for name in names {
            let mut line = ProgressLine::begin();
            let mut show = |looked_at: u64| line.show(|| format!("Store {name}: looked at {}", files(looked_at)));
            let swept = stores.sweep(&name, delete, &mut show).await;
            line.end()?;
            let swept = swept.map_err(self.explain())?;
            lost += swept.lost;
            say(&told_of_sweep(&name, &swept))?;
        }
        if lost == 0 {
            Ok(())
        } else {
            Err(Failure::new("the bytes of some files are gone: restore them from a backup"))
        }
    }

    async fn move_media(&self, moved: &MoveMedia) -> Result<(), Failure> {
        let stores = self.stores().await?;
        if stores.current() == moved.from {
            writeln!(
                io::stderr(),
                "New media go on coming into {}, until `media.store` is `{}` on every node.",
                moved.from,
                moved.to
            )?;
        }
        let mut line = ProgressLine::begin();
        let mut show = |now: MoveSummary| line.show(|| told_of_move(now));
        let done = stores.move_media(&moved.from, &moved.to, &mut show).await;
        line.end()?;
        let done = done.map_err(self.explain())?;
        say(&format!(
            "{}. What was in {} is deleted there when a running server next tidies up.\n",
            told_of_move(done),
            moved.from
        ))?;
        if done.failed > 0 {
            let (failed, from) = (files(done.failed), &moved.from);
            let message =
                format!("{failed} could not be read, and stay in {from}: see `hearth admin sweep-media {from}`");
            return Err(Failure::new(message));
        }
        Ok(())
    }

    async fn rotate_media_key(&self) -> Result<(), Failure> {
        let stores = self.stores().await?;
        let mut line = ProgressLine::begin();
        let mut show = |now: RotateSummary| line.show(|| told_of_rotation(now));
        let done = stores.rotate(&mut show).await;
        line.end()?;
        let done = done.map_err(self.explain())?;
        if done.failed > 0 {
            say(&format!("{}.\n", told_of_rotation(done)))?;
            let message = format!("the master keys of {} are not in `media.master_keys`", files(done.failed));
            return Err(Failure::new(message));
        }
        say(&format!("{}. The others of `media.master_keys` can go.\n", told_of_rotation(done)))
    }
}

/// What a quarantine is about.
fn concerned(change: &QuarantineChange) -> String {
    let QuarantineChange { files: count, bytes, events, .. } = *change;
    let known = if bytes > 0 { format!(", {}", size(bytes)) } else { String::new() };
    match events {
        Some(events) if events > 0 => format!("Of what {events} events name, that is {} more.", files(count)),
        _ => format!("That is {}{known}.", files(count)),
    }
}

fn told_of_sweep(store: &str, swept: &SweepSummary) -> String {
    let SweepSummary { stored, stored_bytes, unnamed, unnamed_bytes, deleted, deleted_bytes, .. } = swept;
    let SweepSummary { foreign, lost, lost_thumbnails, losses, .. } = swept;
    let mut told = vec![format!(
        "Store {store}: {}, {}. Nothing has {unnamed} of them, {}; deleted {deleted} of these, {}.",
        files(*stored),
        size(*stored_bytes),
        size(*unnamed_bytes),
        size(*deleted_bytes)
    )];
    if *foreign > 0 {
        told.push(format!("There are {foreign} that are not Hearth's; they stay."));
    }
    if *lost_thumbnails > 0 {
        told.push(format!("{lost_thumbnails} thumbnails are gone."));
    }
    if *lost > 0 {
        told.push(format!("The bytes of {} are gone:", files(*lost)));
    }
    told.extend(losses.iter().map(|media| format!("  {media}")));
    told.join("\n") + "\n"
}

fn told_of_move(now: MoveSummary) -> String {
    let MoveSummary { files: moved, thumbnails, bytes, all_files, all_bytes, .. } = now;
    let (bytes, all) = (size(bytes), size(all_bytes));
    format!("Moved {moved} of {all_files} files and {thumbnails} thumbnails, {bytes} of about {all}")
}

fn told_of_rotation(now: RotateSummary) -> String {
    format!("The keys of {} and {} thumbnails go by the first master key now", files(now.files), now.thumbnails)
}
