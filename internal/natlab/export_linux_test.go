package natlab

var (
	DialFrom   = (*Lab).dialFrom
	Messages   = messages
	Attributes = attributes
	Elements   = elements
	Counter    = counter
)
