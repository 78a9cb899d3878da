//! Joins: operators of both sides, and the stores that they look into.

use super::{Place, Track, Way};
use crate::declaration::SourceKind;
use crate::plan::{
    Format, Op, RESPONSE_PARTITION, Side, Windows, joined_row, response, subscriber, subscription,
};
use crate::planner::PlanError;
use crate::planner::formats::key_format;
use crate::planner::join::{self, How, Joined};
use crate::{Env, Expr, Path, Type, ValueReads};

impl<'d> Track<'_, 'd> {
    pub(super) fn join(&mut self, joined: &Joined<'d>, path: &Path) -> Result<(), Vec<PlanError>> {
        let path = &path.field(joined.kind.name());
        let (left_cut, right_cut) = &joined.cuts;
        if let Some(name) = left_cut {
            self.cut(name, path, &joined.reads)?;
        }
        let mut other = self.builder.end(&joined.with, path)?;
        if let Some(name) = right_cut {
            other = self.aside(other, |track| track.cut(name, path, &ValueReads::Whole))?;
        }
        let env = join::env(joined.kind, joined.how, &self.place.env, &other.env.value);
        let value = join::compile(joined.declared, joined.kind, &env, path)?;
        let not_kept = || PlanError::new(path, "not valid");
        let (left, right) = joined.unmatched();
        match joined.how {
            How::ForeignKey => self.join_foreign_key(joined, other, &value, path)?,
            How::StreamTable(grace_ms) => {
                let other = self.unite(other);
                let held = match (grace_ms, &joined.declared.name) {
                    (Some(grace_ms), Some(name)) => {
                        let key = key_format(&self.place.env.key, path)?;
                        let value = self.place.env.value.clone();
                        Some(self.store(name, key, value, Some(Windows::Held { grace_ms }))?)
                    }
                    _ => None,
                };
                let op = Op::JoinTable {
                    store: other.store.ok_or_else(not_kept)?,
                    held,
                    unmatched: left,
                    value,
                };
                self.node(path, op)?;
                joined.follow(&mut self.place.env);
                self.place.store = None;
            }
            How::Tables => {
                let other = self.unite(other);
                let left_store = self.place.store.ok_or_else(not_kept)?;
                let right_store = other.store.ok_or_else(not_kept)?;
                let op = |other, side| Op::JoinTables {
                    other,
                    side,
                    left,
                    right,
                    value: value.clone(),
                };
                self.node(path, op(right_store, Side::Left))?;
                let there = self.aside(other, |track| track.node(path, op(left_store, Side::Right)))?;
                self.place.last = self.meet(path, Op::Forward, &[self.place.last, there.last])?;
                joined.follow(&mut self.place.env);
                self.place.store = None;
                if let Some(name) = &joined.declared.name {
                    self.table(name, None, path)?;
                }
            }
            How::Streams(windows) => {
                let other = self.unite(other);
                let name = joined.declared.name.as_deref().ok_or_else(not_kept)?;
                let key = key_format(&self.place.env.key, path)?;
                let kept = joined_row(&self.place.env.value, &other.env.value);
                let store = self.store(name, key, kept, Some(Windows::Join(windows)))?;
                let op = |side| Op::JoinStreams {
                    store,
                    side,
                    left,
                    right,
                    value: value.clone(),
                };
                self.node(path, op(Side::Left))?;
                let there = self.aside(other, |track| track.node(path, op(Side::Right)))?;
                self.place.last = self.meet(path, Op::Forward, &[self.place.last, there.last])?;
                joined.follow(&mut self.place.env);
                self.place.store = None;
            }
        }
        Ok(())
    }

    /// What a value names is told to where that is kept, and what is there is told back.
    fn join_foreign_key(
        &mut self,
        joined: &Joined<'d>,
        other: Place,
        value: &Expr,
        path: &Path,
    ) -> Result<(), Vec<PlanError>> {
        let not_valid = || PlanError::new(path, "not valid");
        let name = joined.declared.name.as_deref().ok_or_else(not_valid)?;
        let [subscriptions, responses] = join::names(joined.declared).map(|part| format!("{name}-{part}"));
        let (table, other_table) = (
            self.place.store.ok_or_else(not_valid)?,
            other.store.ok_or_else(not_valid)?,
        );
        let (key, foreign) = (self.place.env.key.clone(), other.env.clone());
        let foreign_key = join::compile_foreign_key(joined.declared, &self.place.env, path)?;

        // Parts that are cut here become those of the tables, which were begun before: no place that is waited for moves.
        let asked = self.aside(self.place.clone(), |track| {
            let foreign_key = foreign_key.clone();
            track.node(path, Op::Subscribe { foreign_key })?;
            track.place.env = Env::of_record(foreign.key.clone(), subscription(&key));
            let way = Way {
                kind: SourceKind::Table,
                partition: None,
                is_of_updates: true,
            };
            track.cut_as(way, &subscriptions, path, &ValueReads::Whole)
        })?;
        let answered = self.aside(asked, |track| {
            let other = track.unite(other);
            let by = Format::Row(subscriber(&foreign.key, &key));
            let store = track.store(&subscriptions, by, Type::Int, None)?;
            let table = other_table;
            track.node(path, Op::Register { store, table })?;
            let told = track.aside(other, |track| track.node(path, Op::Notify { store }))?;
            track.place.last = track.meet(path, Op::Forward, &[track.place.last, told.last])?;
            track.place.env = Env::of_record(key.clone(), response(&foreign.key, &foreign.value));
            let way = Way {
                kind: SourceKind::Table,
                partition: Some(RESPONSE_PARTITION),
                is_of_updates: true,
            };
            track.cut_as(way, &responses, path, &ValueReads::Whole)
        })?;
        let answered = self.unite(answered);
        let (unmatched, _) = joined.unmatched();
        let kept = value.ty().clone();
        let store = self.store(name, key_format(&key, path)?, kept, None)?;
        let op = |side| Op::JoinForeignKey {
            table,
            store,
            side,
            unmatched,
            foreign_key: foreign_key.clone(),
            value: value.clone(),
        };
        self.node(path, op(Side::Left))?;
        let there = self.aside(answered, |track| track.node(path, op(Side::Right)))?;
        self.place.last = self.meet(path, Op::Forward, &[self.place.last, there.last])?;
        joined.follow(&mut self.place.env);
        self.place.store = Some(store);
        Ok(())
    }
}
