//! One test for each check.

/// Calls `$then` with the names of all checks, after what it is given.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    ($then:path, $($given:tt)*) => {
        $then! {
            $($given)*
            a_new_stream_tells_what_exists_and_then_synced
            a_start_and_a_stop_are_told_in_order_once
            a_new_run_has_a_new_id
            a_pause_and_a_resume_are_told
            a_definition_and_its_removal_are_told
            a_domain_filter_passes_only_its_domain
            two_subscribers_get_the_same_events
            a_list_has_paused_domains_as_paused
            a_pause_in_an_outage_is_delivered_and_then_listed
            a_paused_domain_is_the_same_after_an_outage
            every_lifecycle_event_says_whether_its_domain_persists
            a_definition_persists_until_it_is_removed
            a_table_folded_from_events_equals_the_list
            a_silent_end_is_corrected_by_verification
            a_slow_subscriber_gets_lagged_and_the_final_state
            an_outage_is_a_gap_then_inferred_then_synced
            a_restart_in_an_outage_is_a_stop_and_a_start
            unreachable_is_never_stopped
            subscribing_in_an_outage_opens_with_disconnected
            a_first_subscription_to_a_source_out_of_reach_fails_unless_it_asks_to_wait
            dropping_the_stream_deregisters
            dropping_one_of_two_streams_leaves_the_other_alone
            close_returns_once_deregistered
            nothing_is_told_after_close
            a_shutdown_ends_the_stream_after_what_was_told
        }
    };
}

/// One `#[tokio::test]` for each check: see the [module](crate::conformance).
#[macro_export]
macro_rules! conformance_tests {
    (paused, ignore = [$($ignored:tt)*], $rig:expr $(,)?) => {
        $crate::__conformance_tests! {
            ($) ($rig) (#[tokio::test(start_paused = true)]) [$($ignored)*]
        }
    };
    (paused, $rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test(start_paused = true)]) [] }
    };
    (ignore = [$($ignored:tt)*], $rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test]) [$($ignored)*] }
    };
    // One attribute: of several the last could as well begin the expression.
    (#[$($attribute:tt)*] ignore = [$($ignored:tt)*], $rig:expr $(,)?) => {
        $crate::__conformance_tests! {
            ($) ($rig) (#[tokio::test] #[$($attribute)*]) [$($ignored)*]
        }
    };
    (#[$($attribute:tt)*] $rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test] #[$($attribute)*]) [] }
    };
    ($rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test]) [] }
    };
}

/// Makes a macro that finds out which checks are ignored, since none can compare two names, and calls
/// it for each check.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    (($d:tt) $rig:tt $attributes:tt [$($reason:literal: $($ignored:ident)+),* $(,)?]) => {
        // A name that is none of a check is an error here.
        $($( const _: fn() = || { let _ = $crate::conformance::$ignored; }; )+)*

        macro_rules! __conformance_case {
            $($(
                ($ignored) => {
                    $crate::__conformance_ignored! { $rig $attributes $reason $ignored }
                };
            )+)*
            ($d check:ident) => {
                $crate::__conformance_test! { $rig $attributes $d check }
            };
        }

        $crate::__conformance_checks! { $crate::__conformance_each, }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_each {
    ($($check:ident)+) => {
        $( __conformance_case! { $check } )+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    (($rig:expr) ($($attribute:tt)*) $check:ident) => {
        $($attribute)*
        async fn $check() -> ::std::result::Result<(), $crate::Failure> {
            let outcome = $crate::conformance::$check(&$rig).await;
            $crate::conformance::must_be_supported(outcome)
        }
    };
}

/// The reason stands in the report. Run all the same, it is an error if the rig can do it after all.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_ignored {
    (($rig:expr) (#[$test:meta] $($attribute:tt)*) $reason:literal $check:ident) => {
        #[$test]
        #[ignore = $reason]
        async fn $check() -> ::std::result::Result<(), $crate::Failure> {
            let outcome = $crate::conformance::$check(&$rig).await;
            $crate::conformance::must_be_unsupported(outcome)
        }
    };
}
