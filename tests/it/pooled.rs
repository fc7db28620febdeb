//! The two-device stories through PgBouncer in transaction mode: the same bodies, another way to the
//! server. Sessions are shared there, so that nothing of one may be left in another.

use crate::support::neighbour::Pooler;
use crate::support::server::{Client, behind, shared};
use std::sync::OnceLock;

/// One pooler for these tests, with few enough connections for its clients to share them.
fn pooler() -> Option<&'static Pooler> {
    static POOLER: OnceLock<Option<Pooler>> = OnceLock::new();
    POOLER.get_or_init(|| Pooler::before(shared(), 5)).as_ref()
}

/// Each story as a test of its own, named after it.
macro_rules! through_the_pooler {
    ($($module:ident :: $story:ident),* $(,)?) => {$(
        #[test]
        fn $story() {
            if let Some(pooler) = pooler() {
                behind(pooler, crate::$module::$story);
            }
        }
    )*};
}

through_the_pooler! {
    stories::what_was_written_offline_is_there_once_the_network_is,
    stories::a_blocked_network_holds_changes_back_and_loses_none,
    stories::a_hundred_quick_messages_travel_in_few_batches_through_the_service,
    stories::a_row_changed_in_postgres_arrives_and_a_concurrent_change_is_a_conflict,
    stories::edits_deletes_truncate_and_key_changes_made_in_postgres_arrive,
    stories::two_devices_and_postgres_hold_one_conversation,
    conflicts::every_kind_of_conflict_is_decided_by_every_policy_and_kept_whole_on_both_sides,
    conflicts::a_restored_original_is_a_new_edit_that_reaches_everyone,
    chinook::a_clone_of_chinook_equals_the_original_by_value_type_and_schema,
    exactly_once::services_whose_every_commit_may_lose_its_answer_converge_without_a_conflict,
    mirrors::two_devices_that_start_at_once_make_one_workspace,
    mirrors::unique_values_that_swap_rows_travel_in_one_batch,
    together::devices_that_push_the_same_rows_at_once_do_not_deadlock,
    late_commits::what_eight_overlapping_writers_commit_arrives_within_two_polls_and_a_second,
    late_commits::a_change_that_commits_while_a_round_of_pages_is_under_way_arrives,
    poison::one_poison_row_among_ten_thousand_stops_nobody_else_and_heals,
}

/// What a session carries beyond its transactions. The pooler itself sets what a client names at login.
const LEFT: &str = "select 'setting ' || name from pg_settings where source = 'session' \
    and name not in ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', \
    'standard_conforming_strings', 'IntervalStyle', 'search_path') \
    union all select 'statement ' || statement from pg_prepared_statements \
    union all select 'cursor ' || name from pg_cursors where name <> '' \
    union all select 'channel ' || c from pg_listening_channels() c \
    union all select 'lock ' || mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() \
    union all select 'temporary ' || relname from pg_class \
    where relnamespace = pg_my_temp_schema() and relkind = 'r'";

#[test]
fn nothing_of_a_session_is_left_in_the_pool() {
    const CONNECTIONS: usize = 3;
    let Some(pooler) = Pooler::before(shared(), CONNECTIONS) else {
        return;
    };
    behind(&pooler, || {
        crate::stories::two_devices_and_postgres_hold_one_conversation();
        crate::conflicts::every_kind_of_conflict_is_decided_by_every_policy_and_kept_whole_on_both_sides();
        crate::stories::a_hundred_quick_messages_travel_in_few_batches_through_the_service();
    });
    // Open transactions hold a session each: all of them are looked at.
    let clients: Vec<Client> = (0..CONNECTIONS)
        .map(|_| Client::connect(&pooler.url()))
        .collect();
    let mut sessions = Vec::new();
    for client in &clients {
        client.exec("begin");
        sessions.push(client.one("select pg_backend_pid()"));
        assert_eq!(client.rows(LEFT), Vec::<Vec<String>>::new());
        assert_eq!(client.one("show search_path"), "\"$user\", public");
    }
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), CONNECTIONS);
}
