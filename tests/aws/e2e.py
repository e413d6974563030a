"""The whole path on AWS protocols: deploy, ship, drill, break, drill again, go silent, come back.

Each step needs the ones before it; where one fails, those after it count as failed too.
Ends with `N passed, N failed`, and leaves nothing running.
"""

import signal
import sys
import traceback

from place import WORK, prepare
from cloud import forget_machine
from story import Story

LIMIT_SECONDS = 3500

STEPS = (
    "build_the_programs", "validate_the_template", "build_the_function", "start_the_emulator", "deploy_the_stack",
    "look_at_the_deployment", "try_every_right", "ship_while_a_writer_commits", "drill_on_demand",
    "read_the_record_back", "be_drilled_by_the_schedule", "restore_with_the_restore_key",
    "be_refused_with_the_ship_key", "break_an_object", "read_the_failure_mail", "mend_the_object",
    "compact_on_demand", "drill_the_same_from_the_command_line", "stop_the_shipper", "read_the_staleness_mail", "compare_with_the_source", "come_back", "read_the_recovery_mail",
    "ring_the_error_alarm",
)


def interrupted(number, _frame):
    """Leaves through the `finally` clauses."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGALRM, interrupted)
    signal.alarm(LIMIT_SECONDS)
    forget_machine()
    prepare()
    story = Story()
    passed = 0
    try:
        for name in STEPS:
            step = getattr(story, name)
            title = name.replace("_", " ")
            try:
                seen = step()
            except (Exception, KeyboardInterrupt) as fault:
                known = isinstance(fault, (AssertionError, KeyboardInterrupt))
                text = f"{type(fault).__name__}: {fault}" if known else traceback.format_exc()
                print(f"FAIL {title}: {text}")
                print(f"     logs: {WORK / 'log'}")
                break
            passed += 1
            print(f"ok   {title}: {seen}")
    finally:
        signal.alarm(0)
        story.close()
    for name in STEPS[passed + 1:]:
        print(f"FAIL {name.replace('_', ' ')}: not reached")
    failed = len(STEPS) - passed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
