<?php
// WordPress's own wp_mail() without a database: the parts that it needs, and `plugin`, the owner's code, before it.
// Called by `Command line` PHP, so the site's name stands in for what a web server would say.
$_SERVER['SERVER_NAME'] = 'blog.example.net';
define('ABSPATH', getenv('WORDPRESS') . '/');
define('WPINC', 'wp-includes');
define('WP_CONTENT_DIR', ABSPATH . 'wp-content');
define('WP_DEBUG', false);
foreach (['plugin', 'functions', 'formatting', 'pomo/mo', 'l10n', 'class-wp-error', 'http', 'pluggable'] as $part) {
    require_once ABSPATH . WPINC . "/$part.php";
}
function get_bloginfo($what = '') { return $what === 'charset' ? 'UTF-8' : 'Blog'; }
function network_home_url() { return 'https://blog.example.net/'; }
function is_wp_error($thing) { return $thing instanceof WP_Error; }
function wp_installing() { return true; }
function is_multisite() { return false; }

$asked = json_decode(stream_get_contents(STDIN), true);
if ($asked['plugin']) {
    require $asked['plugin'];
}
$why = '';
add_action('wp_mail_failed', function ($error) use (&$why) { $why = $error->get_error_message(); });
$told = [];
foreach ($asked['mails'] as $mail) {
    $headers = array_merge(
        $mail['sender'] ? ["From: Blog <{$mail['sender']}>"] : [],
        array_map(fn($to) => "Cc: $to", $mail['cc']),
        array_map(fn($to) => "Bcc: $to", $mail['bcc'])
    );
    $ok = wp_mail($mail['to'], $mail['subject'], $mail['text'], $headers);
    $told[] = $ok ? ['ok' => true] : ['ok' => false, 'error' => $why];
}
echo json_encode($told, JSON_INVALID_UTF8_SUBSTITUTE);
