/** The QMP client on the lab's QEMU 10: the tests that run on the host's QEMU elsewhere. */
import '../integration/qmp/client.test.ts';
import '../integration/qmp/events.test.ts';
import '../integration/qmp/jobs.test.ts';
import '../integration/qmp/versions.test.ts';
