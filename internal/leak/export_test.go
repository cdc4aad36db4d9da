package leak

var CheckTo = check // with somewhere else to write to than the standard error
