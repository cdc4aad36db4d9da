package stdlib

// Why a test of http.Transport may fail over httpx.Transport.
const (
	oneDial = "a request that comes while a dial is under way for one that gave up, or was served otherwise, waits for that dial; " +
		"the test wants a second one, whose connection nobody would need"
	inTurn = "a connection goes to whoever has waited longest, whichever dial brought it; " +
		"the test takes the first that its server accepts for that of the first request, which with DisableKeepAlives is so in http.Transport"
	noIdleLimit = "MaxIdleConns and MaxIdleConnsPerHost have no counterpart: a connection that is closed costs its port for minutes more, " +
		"so that idle ones are kept for as long as their path allows"
	noDialTLS = "DialTLS and DialTLSContext have no counterpart: connections come from a dialer.Dialer, and TLS is put over them"
	dialError = "a dial fails with a *dialer.DialError, which has the address and says whether a retry is safe; " +
		"the test wants what its dial function returned and nothing around it, and errors.Is finds that"
	lateHook = "the test holds up the PutIdleConn hook and wants the connection to be free meanwhile; " +
		"http.ClientConn calls the hook before it hands the response to httpx, whose pool has the connection back after that"
)

// Differences are the tests that are meant to fail over natwise, and why.
var Differences = map[string]string{
	"TestTransportPoolConnHTTP2Startup":                         oneDial,
	"TestTransportPoolConnConnectionBecomesAvailableDuringDial": oneDial,
	"TestTransportPoolCancelRequestReusesConn":                  oneDial,
	"TestTransportPoolCancelRequestWithDisableKeepAlives":       oneDial,
	"TestServerAllowsBlockingRemoteAddr":                        inTurn,
	"TestTransportPoolClosesConnsPastMaxIdleConnsPerHost":       noIdleLimit,
	"TestTransportMaxPerHostIdleConns":                          noIdleLimit,
	"TestTransportMaxIdleConns":                                 noIdleLimit,
	"TestTransportDialTLS":                                      noDialTLS,
	"TestTransportDialTLSContext":                               noDialTLS,
	"TestIdleConnH2Crash":                                       noDialTLS,
	"TestTransportDialPreservesNetOpProxyError":                 dialError,
	"TestCancelRequestWhenSharingConnection":                    lateHook,
}
