package natlab_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// asNobody runs this test binary again as a user without any right.
func asNobody(t *testing.T, args ...string) (output string, status int) {
	t.Helper()
	const nobody = 65534
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Skipf("not root: %v", err)
	}
	if strings.Contains(string(out), "no kernel lab here") {
		t.Skip("no user namespaces here")
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestAUserWhoIsNotRootHasLabsToo(t *testing.T) {
	t.Parallel()
	out, status := asNobody(t, "-test.v", "-test.run=^TestEachAddressAndPortHasItsOwnAccount$")
	if status != 0 || !strings.Contains(out, "--- PASS") {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestEnterPassesArgumentsAndStatusThrough(t *testing.T) {
	t.Parallel()
	out, status := asNobody(t, "-no-such-flag")
	if status != 2 || !strings.Contains(out, "no-such-flag") {
		t.Errorf("status %d: %s", status, out)
	}
}
