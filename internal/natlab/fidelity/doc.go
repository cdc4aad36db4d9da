// Fidelity compares the ledger with the gateway of the kernel lab, flow by flow,
// every 10 ms, while natwise does the work of every storm, and then a churn of
// connections that end in every way.
//
//	go run ./internal/natlab/fidelity [-json] [-only NAME] [-full]
//
// It needs root or unprivileged user namespaces, and says so where there are
// neither. The exit status is zero only if every bound was kept:
//
//   - No live flow of the gateway is missing from the ledger. The gateway is read
//     first and the ledger after it. A flow that the gateway knew had been booked
//     before, so it must be in the ledger still, unless its port came free between
//     the two readings, which the gateway's own timer tells. Flows are compared by
//     both addresses; those whose dial is under way or has failed, of which the
//     ledger does not know the local port, by their number.
//   - At most 128 flows to one destination live at a time. The gateway has room
//     for twice as many, so that it does not hide one too many by refusing it.
//   - What the ledger holds beyond the gateway is at most 5 % of what the gateway
//     holds, both integrated over time, or 25 ms for each flow that ended.
//
// Lateness is how much later than the gateway the ledger frees a port, by kind of
// ending. The ledger is unsure of an ending whose last segment may not have reached
// the gateway, such as the RST of a request that is cancelled before it was
// acknowledged, and expects the longest hold. The moment of the gateway's is to
// within its clock's tick of 4 ms.
package main
