<?php
// PEAR's Mail with Net_SMTP, as MediaWiki sends when $wgSMTP is set.
error_reporting(E_ALL & ~E_DEPRECATED);
require_once 'Mail.php';

$asked = json_decode(stream_get_contents(STDIN), true);
$given = $asked['settings'];
$params = ['host' => ($given['tls'] === 'implicit' ? 'ssl://' : '') . $given['host'], 'port' => $given['port'],
    'auth' => $given['user'] !== null, 'username' => $given['user'], 'password' => $given['password'],
    'persist' => true, 'timeout' => 20];
if ($given['ca']) {
    $params['socket_options'] = ['ssl' => ['cafile' => $given['ca']]];
}
if (!empty($asked['local_settings'])) {
    eval($asked['local_settings']);
    $params = $wgSMTP;
}
$mailer = Mail::factory('smtp', $params);
$told = [];
foreach ($asked['mails'] as $mail) {
    $headers = ['From' => $mail['sender'], 'To' => implode(', ', $mail['to']), 'Cc' => implode(', ', $mail['cc']),
        'Subject' => mb_encode_mimeheader($mail['subject'], 'UTF-8'), 'Return-Path' => $mail['sender'],
        'MIME-Version' => '1.0', 'Content-Type' => 'text/plain; charset=UTF-8', 'Content-Transfer-Encoding' => '8bit'];
    $done = $mailer->send(array_merge($mail['to'], $mail['cc'], $mail['bcc']), $headers, $mail['text']);
    $told[] = PEAR::isError($done) ? ['ok' => false, 'error' => $done->getMessage()] : ['ok' => true];
}
$mailer->disconnect();
echo json_encode($told, JSON_INVALID_UTF8_SUBSTITUTE);
