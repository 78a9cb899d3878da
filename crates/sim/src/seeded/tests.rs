use super::*;

fn app() -> Arc<App> {
    Arc::new(App::new(Sums::All).unwrap())
}

fn windows() -> Arc<App> {
    Arc::new(App::new(Sums::Windows).unwrap())
}

fn first_violation(mutant: Mutant) -> Option<Violation> {
    let app = app();
    (0..3_000).find_map(|seed| Simulation::new(&app, seed, mutant).run().err())
}

/// `streamapp-sim schedules` runs many more.
#[test]
fn nothing_is_lost_repeated_or_reordered_under_any_schedule() {
    let app = app();
    for seed in 0..150 {
        let run = Simulation::new(&app, seed, Mutant::Faithful).run();
        assert!(run.is_ok(), "{run:?}");
    }
}

/// Results of many schedules, none of which breaks a rule.
fn results(app: &Arc<App>) -> u64 {
    let run = |seed| match Simulation::new(app, seed, Mutant::Faithful).run() {
        Ok(figures) => figures.results,
        Err(broken) => panic!("{broken:?}"),
    };
    (0..150).map(run).sum()
}

#[test]
fn windows_close_once_and_in_order_under_any_schedule() {
    let results = results(&windows());
    assert!(results > 1_500, "{results}");
}

#[test]
fn each_pair_is_joined_once_under_any_schedule() {
    let results = results(&Arc::new(App::new(Sums::Pairs).unwrap()));
    assert!(results > 1_500, "{results}");
}

#[test]
fn a_run_is_reproduced_by_its_seed() {
    let app = app();
    let run = |seed| Simulation::new(&app, seed, Mutant::Faithful).run();
    assert_eq!(run(42), run(42));
}

#[test]
fn positions_read_before_init_are_caught() {
    assert!(first_violation(Mutant::ReadsPositionsBeforeInit).is_some());
}

#[test]
fn a_timeout_taken_for_an_abort_is_caught() {
    assert!(first_violation(Mutant::TakesTimeoutForAbort).is_some());
}

#[test]
fn a_producer_kept_in_doubt_is_caught() {
    assert!(first_violation(Mutant::KeepsProducerInDoubt).is_some());
}

#[test]
fn a_store_written_before_the_commit_is_caught() {
    assert!(first_violation(Mutant::AppliesBeforeCommit).is_some());
}

#[test]
fn a_process_that_ignores_its_successor_is_caught() {
    assert!(first_violation(Mutant::NeverLeaves).is_some());
}

#[test]
fn a_restore_that_ends_at_the_last_stable_offset_is_caught() {
    assert!(first_violation(Mutant::RestoresToWhatIsStable).is_some());
}

#[test]
fn a_store_that_has_missed_tombstones_is_caught() {
    assert!(first_violation(Mutant::KeepsOldStores).is_some());
}

#[test]
fn a_changelog_position_noted_before_the_commit_is_caught() {
    assert!(first_violation(Mutant::NotesWhatIsSent).is_some());
}

#[test]
fn tasks_given_up_only_in_word_are_caught() {
    assert!(first_violation(Mutant::AdoptsWhileItRuns).is_some());
}

#[test]
fn tasks_started_before_they_are_given_up_are_caught() {
    assert!(first_violation(Mutant::StartsUnsettled).is_some());
}

#[test]
fn an_end_of_a_changelog_that_others_may_have_written_is_caught() {
    assert!(first_violation(Mutant::NotesWithoutCommit).is_some());
}

#[test]
fn a_store_that_could_not_be_written_and_is_used_is_caught() {
    assert!(first_violation(Mutant::IgnoresFailedWrites).is_some());
}

#[test]
fn a_snapshot_of_another_operator_taken_for_its_own_is_caught() {
    assert!(first_violation(Mutant::TakesOthersRecords).is_some());
}

#[test]
fn a_copy_that_stood_still_while_tombstones_went_is_caught() {
    assert!(first_violation(Mutant::FollowsAtAnyAge).is_some());
}

/// Seed 1681: the copy stood still between looking at its age and reading, the tombstone of a closed window went meanwhile,
/// and the window was closed again.
#[test]
fn a_copy_that_stood_still_before_it_read_is_caught() {
    let app = windows();
    let run = |mutant| Simulation::new(&app, 1_681, mutant).run();
    assert!(run(Mutant::Faithful).is_ok());
    let found = (1_600..3_000).find_map(|seed| {
        let run = Simulation::new(&app, seed, Mutant::LooksAtAgeBeforeReading).run();
        run.err()
    });
    assert!(found.is_some());
}

#[test]
fn a_new_control_log_beside_producers_of_the_old_one_is_caught() {
    assert!(first_violation(Mutant::StartsOverWithoutFencing).is_some());
}

#[test]
fn a_snapshot_that_replaces_what_it_does_not_hold_is_caught() {
    assert!(first_violation(Mutant::ShortensWithoutLooking).is_some());
}
