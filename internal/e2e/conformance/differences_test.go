package conformance

import (
	"slices"
	"testing"

	"github.com/natwise/natwise/internal/e2e/drivers"
)

// A key names what differs: the label of a line that a scenario has noted.
type key struct{ driver, scenario, label string }

// A difference is one that is meant: some of both lines, and why it is so.
type difference struct{ plain, ours, why string }

// Why natwise does otherwise.
const (
	says   = "an operation whose connection was lost says so, and whether it may have run; the driver's error is within"
	once   = "what may have run does not match driver.ErrBadConn, by which programs and database/sql know what to run again"
	stays  = "database/sql closes a Conn by itself only where it sees driver.ErrBadConn; what uses it next does"
	looked = "a connection is looked at before it is lent, and one that has ended is not"
	unsent = "on a connection that has ended nothing is sent, and all drivers have the same word for that"
	others = "a statement that is kept hears from the server that another connection has changed its table, as a long-lived one of the driver's does"
	means  = "a dial that failed says what that means"
	anew   = "a statement that has failed is not kept, so that the next use has a new one; the driver alone would fail until it is closed"
)

const (
	duringQuery = "a connection that the server ends during a query"
	duringTx    = "a transaction whose connection the server ends"
	notThere    = "a server that is not there"
	refused     = "connect: connection refused"
	whileIdle   = "a connection that the server has ended"
	altered     = "a statement whose table is altered"
	recreated   = "a statement prepared again when its table is another"
	terminated  = "FATAL: terminating connection"
	badConn     = "is driver: bad connection"
	mayHaveRun  = "sqlx: connection lost during exec, it may have run: "
	notSent     = "nothing of it was sent: "
	success     = ": <nil>"
	cachedPlan  = "cached plan must not change result type"
)

// differences are those that are meant.
var differences = map[key]difference{
	{drivers.PGX, duringQuery, "Exec"}:   {terminated, mayHaveRun + terminated, says},
	{drivers.PQ, duringQuery, "Exec"}:    {badConn, mayHaveRun + "driver: bad connection (EOF)\", is EOF", once},
	{drivers.PQ, duringQuery, "close"}:   {"sql: connection is already closed", success, stays},
	{drivers.MySQL, duringQuery, "Exec"}: {"invalid connection", mayHaveRun + "invalid connection", says},

	{drivers.PGX, notThere, "text"}:   {refused, "peer-down: " + refused, means},
	{drivers.PQ, notThere, "text"}:    {refused, "peer-down: " + refused, means},
	{drivers.MySQL, notThere, "text"}: {refused, "peer-down: " + refused, means},

	{drivers.PGX, duringTx, "after the end"}:                                  {terminated, badConn, unsent},
	{drivers.PGX, duringTx, "commit"}:                                         {"conn closed", notSent + "conn closed", says},
	{drivers.PQ, duringTx, "commit"}:                                          {badConn, notSent + "driver: bad connection", says},
	{drivers.PQ, "two transactions at a time", "closed"}:                      {"sql: connection is already closed", success, stays},
	{drivers.PQ, "two transactions at a time", "the first"}:                   {badConn, notSent + "driver: bad connection", says},
	{drivers.PQ, "a transaction whose context ends during a query", "commit"}: {badConn, notSent + "driver: bad connection", says},
	{drivers.MySQL, duringTx, "after the end"}:                                {"invalid connection", badConn, unsent},
	{drivers.MySQL, duringTx, "commit"}:                                       {"invalid connection", notSent + "invalid connection", says},

	{drivers.MySQL, "a result that stays open while others come", "end"}:         {"invalid connection", notSent + "invalid connection", says},
	{drivers.MySQL, "a transaction whose context ends during a query", "commit"}: {"context deadline exceeded", notSent + "context deadline exceeded", says},

	{drivers.PGX, whileIdle, "Ping"}:                  {badConn, success, looked},
	{drivers.PGX, whileIdle, "Exec"}:                  {terminated, success, looked},
	{drivers.PGX, whileIdle, "Exec with an argument"}: {terminated, success, looked},
	{drivers.PGX, whileIdle, "Query"}:                 {terminated, success, looked},
	{drivers.PGX, whileIdle, "Begin"}:                 {terminated, success, looked},
	{drivers.PGX, whileIdle, "Prepare"}:               {terminated, success, looked},
	{drivers.PQ, whileIdle, "Ping"}:                   {badConn, success, looked},

	{drivers.PGX, recreated, "after"}: {"[name id]", cachedPlan, others},
	{drivers.PQ, recreated, "after"}:  {"[name id]", cachedPlan, others},
	{drivers.MySQL, recreated, "who"}: {"connection 1", "gone, closed: <nil>", others},

	{drivers.PGX, altered, "after 1"}: {cachedPlan, "[id more]", anew},
	{drivers.PGX, altered, "after 2"}: {cachedPlan, "[id more]", anew},
	{drivers.PQ, altered, "after 1"}:  {cachedPlan, "[id more]", anew},
	{drivers.PQ, altered, "after 2"}:  {cachedPlan, "[id more]", anew},
}

func TestEveryDifferenceIsOfAScenarioAndHasAReason(t *testing.T) {
	for k, d := range differences {
		if !slices.ContainsFunc(scenarios, func(c scenario) bool { return c.name == k.scenario && c.applies(k.driver) }) {
			t.Errorf("there is no scenario %q with %s", k.scenario, k.driver)
		}
		if d.why == "" {
			t.Errorf("%v has no reason", k)
		}
	}
}
