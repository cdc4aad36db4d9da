package main

import "github.com/natwise/natwise/internal/e2e/drivers"

// Why a test may fail over natwise.
const (
	kept = "a statement that was closed stays prepared on its connection, for whoever prepares the same; " +
		"the test wants the server to have forgotten it"
	pooled = "idle connections are natwise's: DB.Stats counts what is in use, and Connector.Stats the rest"
	limits = "SetMaxIdleConns(0) closes no connection: what database/sql closes goes back to natwise's pool, whose limits Config has"
	keeps  = "SetMaxIdleConns and SetMaxOpenConns have database/sql keep connections above natwise's pool, which the doc says to leave alone; " +
		"it does not reset them, since a driver with a SessionResetter and no Validator is shown to it with neither"
	guard = "driver.ErrBadConn after the statement was sent does not have it run again; the test wants that. " +
		"Idempotent allows for it"
	refused = "as for any driver.ErrBadConn after the statement was sent: that this one is a server's refusal is known to the driver only, " +
		"so that rejectReadOnly closes the connection but has nothing run again"
	wrapped = "the error says that the connection was lost and whether the statement may have run, with the driver's within; " +
		"the test looks at its type and does not unwrap it"
	outlives = "a dial outlives who has asked for it, and the connection is for whoever comes next; " +
		"the test wants the caller's context to end it"
	waited = outlives + ". The error says for how long was waited, and matches context.DeadlineExceeded; the test compares by =="
)

// differences are the tests of each driver that are meant to fail over natwise, and why.
var differences = map[string]map[string]string{
	drivers.PGX: {
		"TestConnMultiplePrepareAndDeallocate/cache_describe":  kept,
		"TestConnMultiplePrepareAndDeallocate/cache_statement": kept,
		"TestConnMultiplePrepareAndDeallocate/describe_exec":   kept,
		"TestConnMultiplePrepareAndDeallocate/exec":            kept,
		"TestConnMultiplePrepareAndDeallocate/simple_protocol": kept,
		"TestCheckIdleConn":                      pooled,
		"TestOptionBeforeAfterConnect":           limits,
		"TestOptionShouldPing_HookCalledOnReuse": keeps,
	},
	drivers.PQ: {
		"TestCopyInRespLoopConnectionError": wrapped,
		"TestUnexpectedEOF":                 guard,
	},
	drivers.MySQL: {
		"TestConnectorTimeoutsDuringOpen":         waited,
		"TestConnectorTimeoutsWatchCancel":        outlives,
		"TestRejectReadOnly/default#01":           refused,
		"TestRejectReadOnly/compress#01":          refused,
		"TestRejectReadOnly/interpolateParams#01": refused,
	},
}
