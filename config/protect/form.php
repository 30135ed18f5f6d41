<?php
// Stands for a script that takes a provider's form and verifies nothing.
if (($_POST['event'] ?? '') === '') {
    http_response_code(400);
    exit("no event\n");
}
error_log("event: {$_POST['event']}");
echo "taken: {$_POST['event']}\n";
