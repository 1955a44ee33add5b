package beneath

// NonBlocking is nothing here: no pipe can take a file's place.
const NonBlocking = 0
