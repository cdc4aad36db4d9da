package clients

var OutOfPorts = outOfPorts
